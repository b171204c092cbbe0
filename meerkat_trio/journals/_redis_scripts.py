"""What runs inside the server for a shared journal: the scripts, each of which happens as a whole or not at all.

A lease is a key that holds a token: whose home a session is, and which incarnation of it. Every script that changes
something of a session compares the token first, in the same step, so a host whose lease is gone changes nothing,
whatever it believes.
"""

from __future__ import annotations

from typing import Final, final

from ..authority import SessionId

__all__ = ["APPEND", "CHECK_OUT", "RELEASE", "RENEW", "RESTORE", "SCRIPTS", "TAKE", "Keys"]


@final
class Keys:
    """The names of everything of one namespace."""

    __slots__ = ("hosts", "incarnations", "namespace", "probe", "vacated")

    def __init__(self, namespace: str) -> None:
        self.namespace: str = namespace
        self.hosts: str = f"{namespace}:hosts"
        """A sorted set: hosts, by when they are taken for gone, in milliseconds since 1970."""
        self.incarnations: str = f"{namespace}:incarnations"
        """A hash: how often each session has had another home; it never falls."""
        self.probe: str = f"{namespace}:probe"
        """Written to find out whether the server has memory."""
        self.vacated: str = f"{namespace}:vacated"
        """Counts the sessions that were given back: who sees it change looks for them."""

    def written(self, host: str) -> str:
        """Name the hash that knows a host's last writing."""
        return f"{self.namespace}:written:{host}"

    def home(self, session_id: SessionId) -> str:
        """Name the lease of a session."""
        return f"{self.namespace}:home:{session_id}"

    def entries(self, session_id: SessionId) -> str:
        """Name the hash of a session's entries."""
        return f"{self.namespace}:entries:{session_id}"


# KEYS: probe, written, then for each session: lease, entries. ARGV: "1" if memory is needed, number of this writing,
# time to live of written in ms; then for each session: its token, how many changes, and for each change: "P" field
# value, "D" field, or "F".
# Returns 'memory', and nothing is written; or the numbers of those sessions whose token is another's, from 1 up, of
# which nothing is written. A writing that comes again, over another connection, may come after later ones: it is known
# by its number, and what it had changed stays as the later ones have left it.
APPEND: Final = """
local last = redis.call('HGET', KEYS[2], 'number')
if last and tonumber(last) >= tonumber(ARGV[2]) then return cjson.decode(redis.call('HGET', KEYS[2], 'moved')) end
if ARGV[1] == '1' then
    local written = redis.pcall('SET', KEYS[1], '1')
    if written.err then return 'memory' end
end
local moved, at = {}, 4
for i = 3, #KEYS, 2 do
    local ours = redis.call('GET', KEYS[i]) == ARGV[at]
    if not ours then moved[#moved + 1] = (i - 1) / 2 end
    local entries, changes = KEYS[i + 1], tonumber(ARGV[at + 1])
    at = at + 2
    for _ = 1, changes do
        local what = ARGV[at]
        if what == 'P' then
            if ours then redis.call('HSET', entries, ARGV[at + 1], ARGV[at + 2]) end
            at = at + 3
        elseif what == 'D' then
            if ours then redis.call('HDEL', entries, ARGV[at + 1]) end
            at = at + 2
        else
            if ours then redis.call('DEL', entries) end
            at = at + 1
        end
    end
end
redis.pcall('HSET', KEYS[2], 'number', ARGV[2], 'moved', #moved > 0 and cjson.encode(moved) or '[]')
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return moved
"""

# KEYS: lease, entries. ARGV: token. Returns 'moved', or fields and values by turns.
RESTORE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'moved' end
return redis.call('HGETALL', KEYS[2])
"""

# KEYS: lease, incarnations. ARGV: session, host, lease in ms. Returns the token, '' if it has a home, or
# 'memory'. Asked again by the same host, it finds what it was given.
TAKE: Final = """
local held = redis.call('GET', KEYS[1])
local mine = ARGV[2] .. ' '
if held then
    if string.sub(held, 1, #mine) == mine then return held end
    return ''
end
local numbered = redis.pcall('HINCRBY', KEYS[2], ARGV[1], 1)
if type(numbered) == 'table' and numbered.err then return 'memory' end
local token = mine .. numbered
redis.call('SET', KEYS[1], token, 'PX', ARGV[3])
return token
"""

# KEYS: hosts, vacated, then the leases. ARGV: host, lease in ms, whether the host is leaving ("1"), then the tokens.
# Returns how many hosts live, how many sessions were given back, and then the numbers, from 1 up, of those leases that
# are another's.
RENEW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if ARGV[3] == '1' then
    if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then redis.pcall('INCR', KEYS[2]) end
else
    redis.pcall('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
end
local found = {redis.call('ZCARD', KEYS[1]), tonumber(redis.call('GET', KEYS[2]) or 0)}
for i = 3, #KEYS do
    if redis.call('GET', KEYS[i]) == ARGV[i + 1] then
        redis.call('PEXPIRE', KEYS[i], ARGV[2])
    else
        found[#found + 1] = i - 2
    end
end
return found
"""

# KEYS: lease, vacated. ARGV: token. Gives a session back at once; says whether it was ours to give.
RELEASE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.pcall('INCR', KEYS[2])
return 1
"""

# KEYS: hosts, vacated. ARGV: host. It serves nothing any more.
CHECK_OUT: Final = """
redis.call('ZREM', KEYS[1], ARGV[1])
redis.pcall('INCR', KEYS[2])
return 1
"""

SCRIPTS: Final = (APPEND, RESTORE, TAKE, RENEW, RELEASE, CHECK_OUT)
