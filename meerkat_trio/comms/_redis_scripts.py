"""What runs inside the server: the scripts, each of which happens as a whole or not at all, and the keys they work on.

A consumer of a stream's group is a network, by its token. It is alive as long as its key is there; ``nobody`` holds
what was given back. A script that checks a fence begins with it, so nothing of a side that has lost its lease is done.
"""

from __future__ import annotations

from hashlib import sha1
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from ..authority import Lane, PeerId
    from ._redis_limits import Fence

__all__ = [
    "ADD",
    "BEAT",
    "FENCED",
    "FULL",
    "GROUP",
    "MEMORY",
    "NOBODY",
    "RELEASE",
    "ROOM",
    "SCRIPTS",
    "TAKE",
    "UPDATE",
    "Keys",
    "digest",
    "taking",
]

GROUP: Final = b"meerkat"
"""The consumer group of every stream."""
FULL: Final = b"full"
MEMORY: Final = b"memory"
NOBODY: Final = b"nobody"
FENCED: Final = b"fenced"


@final
class Keys:
    """The names of everything of one namespace."""

    __slots__ = ("alive", "answers", "namespace", "once", "token")

    def __init__(self, namespace: str, token: str) -> None:
        self.namespace: str = namespace
        self.token: str = token
        self.alive: str = f"{namespace}:alive:"
        """What the keys of living networks begin with."""
        self.answers: str = f"{namespace}:answers:{token}"
        """Where this network gets its answers."""
        self.once: str = f"{namespace}:once:{token}:"
        """What the keys begin with that know the last bundle of each lane."""

    def stream(self, peer_id: PeerId, lane: Lane) -> str:
        """Name the stream of one lane of one peer."""
        return f"{self.namespace}:{peer_id}:{lane.value}"

    def parts(self, peer_id: PeerId) -> str:
        """Name the hash that knows which envelopes of a bundle are answered, while not all are."""
        return f"{self.namespace}:{peer_id}:parts"

    def dead(self, peer_id: PeerId) -> str:
        """Name the stream of what was refused."""
        return f"{self.namespace}:{peer_id}:dead"


# KEYS: stream, once, fence. ARGV: fence token, number of the bundle, stream limit, time to live of once in ms, bundle,
# answers, whether somebody has to serve the stream ("1"), group, our token, what alive keys begin with.
# Returns the entry's id, or a word. A bundle that is added again is found by its number: one lane has one on its way.
ADD: Final = """
if ARGV[1] ~= '' and redis.call('GET', KEYS[3]) ~= ARGV[1] then return 'fenced' end
local last = redis.call('GET', KEYS[2])
local number = ARGV[2] .. ' '
if last and string.sub(last, 1, #number) == number then return string.sub(last, #number + 1) end
if ARGV[7] == '1' then
    local found = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[8])
    local served = false
    if not found.err then
        for _, consumer in ipairs(found) do
            for i = 1, #consumer, 2 do
                local name = consumer[i + 1]
                if consumer[i] == 'name' and name ~= ARGV[9] and redis.call('EXISTS', ARGV[10] .. name) == 1 then
                    served = true
                end
            end
        end
    end
    if not served then return 'nobody' end
end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[3]) then return 'full' end
local added = redis.pcall('XADD', KEYS[1], '*', 'bundle', ARGV[5], 'answers', ARGV[6])
if type(added) == 'table' and added.err then
    if string.find(added.err, 'OOM') then return 'memory' end
    return added
end
redis.call('SET', KEYS[2], number .. added, 'PX', ARGV[4])
return added
"""

# KEYS: stream, our alive key. ARGV: stream limit, time to live of the alive key in ms.
# Says whether there is room in a stream and memory in the server: 'full', 'memory' or 'room'.
ROOM: Final = """
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return 'full' end
local written = redis.pcall('SET', KEYS[2], '1', 'PX', ARGV[2])
if written.err then return 'memory' end
return 'room'
"""

# KEYS: control stream, work stream, parts, dead, fence. ARGV: fence token, group, limit of dead letters, limit of
# answers, number of changes, then for each: index of its stream, entry, mask of what is answered or "", why it is
# refused or ""; then for each answer: stream, by, to, answers, signature.
# Returns the number of answers that could not be written, which are the last ones, for want of memory. Entries are
# removed all the same, or it would never have memory again.
UPDATE: Final = """
if ARGV[1] ~= '' and redis.call('GET', KEYS[5]) ~= ARGV[1] then return 'fenced' end
local group, at = ARGV[2], 6
local first = at + 4 * tonumber(ARGV[5])
local failed = 0
for i = first, #ARGV, 5 do
    local told = redis.pcall('XADD', ARGV[i], 'NOMKSTREAM', 'MAXLEN', '~', ARGV[4], '*',
        'by', ARGV[i + 1], 'to', ARGV[i + 2], 'answers', ARGV[i + 3], 'signature', ARGV[i + 4])
    if type(told) == 'table' and told.err then failed = (#ARGV - i + 1) / 5 break end
end
while at < first do
    local stream, entry, mask, refused = KEYS[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    if mask ~= '' then
        redis.pcall('HSET', KEYS[3], entry, mask)
    else
        if refused ~= '' then
            local found = redis.call('XRANGE', stream, entry, entry)
            if found[1] then
                redis.pcall('XADD', KEYS[4], 'MAXLEN', '~', ARGV[3], '*',
                    'reason', refused, 'stream', stream, 'entry', entry, unpack(found[1][2]))
            end
        end
        redis.call('XACK', stream, group, entry)
        redis.call('XDEL', stream, entry)
        redis.call('HDEL', KEYS[3], entry)
    end
    at = at + 4
end
return failed
"""

# KEYS: stream, fence. ARGV: fence token, group, our token, what alive keys begin with, whether to take from the dead
# too ("1").
# Makes stream and group; takes over what is pending for nobody, or for consumers that are gone; under a fence what is
# pending for any other, at once, for none of them may answer it, and what comes behind it is not to overtake it.
# Returns how many; or -1 if there is no group and no memory for one; or 'fenced'.
TAKE: Final = """
if ARGV[1] ~= '' and redis.call('GET', KEYS[2]) ~= ARGV[1] then return 'fenced' end
local group, me = ARGV[2], ARGV[3]
redis.pcall('XGROUP', 'CREATE', KEYS[1], group, '0', 'MKSTREAM')
local made = redis.pcall('XGROUP', 'CREATECONSUMER', KEYS[1], group, me)
if type(made) == 'table' and made.err then return -1 end
local taken = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group)) do
    local name
    for i = 1, #consumer, 2 do
        if consumer[i] == 'name' then name = consumer[i + 1] end
    end
    local gone = name == 'nobody' or (ARGV[1] ~= '' and name ~= me)
    if not gone and name ~= me and ARGV[5] == '1' then gone = redis.call('EXISTS', ARGV[4] .. name) == 0 end
    if gone then
        local ids = {}
        for _, pending in ipairs(redis.call('XPENDING', KEYS[1], group, '-', '+', 1000, name)) do
            ids[#ids + 1] = pending[1]
        end
        if #ids > 0 then
            ids[#ids + 1] = 'JUSTID'
            redis.call('XCLAIM', KEYS[1], group, me, 0, unpack(ids))
            taken = taken + #ids - 1
        end
        if #redis.call('XPENDING', KEYS[1], group, '-', '+', 1, name) == 0 then
            redis.call('XGROUP', 'DELCONSUMER', KEYS[1], group, name)
        end
    end
end
return taken
"""

# KEYS: control stream, work stream. ARGV: group, our token.
# Gives back what is pending for us and leaves the group. Returns how much is left to give back in another call.
RELEASE: Final = """
local group, me, left = ARGV[1], ARGV[2], 0
for _, stream in ipairs(KEYS) do
    local found = redis.pcall('XPENDING', stream, group, '-', '+', 1000, me)
    if not found.err then
        local ids = {}
        for _, pending in ipairs(found) do ids[#ids + 1] = pending[1] end
        if #ids > 0 then
            ids[#ids + 1] = 'JUSTID'
            redis.pcall('XCLAIM', stream, group, 'nobody', 0, unpack(ids))
        end
        local rest = #redis.call('XPENDING', stream, group, '-', '+', 1, me)
        if rest == 0 then redis.call('XGROUP', 'DELCONSUMER', stream, group, me) end
        left = left + rest
    end
end
return left
"""

# KEYS: our alive key, our answers. ARGV: time to live in ms of the one, of the other.
# A key that is there is given more time even where there is no memory for another.
BEAT: Final = """
if redis.call('PEXPIRE', KEYS[1], ARGV[1]) == 0 then redis.pcall('SET', KEYS[1], '1', 'PX', ARGV[1]) end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return redis.call('EXISTS', KEYS[1])
"""

SCRIPTS: Final = (ADD, ROOM, UPDATE, TAKE, RELEASE, BEAT)


def taking(keys: Keys, stream: str, fence: Fence | None, *, of_the_dead: bool = False) -> tuple[str | bytes | int, ...]:
    """Return what to ask the server to take over what is pending in a stream."""
    key, token = ("", "") if fence is None else (fence.key, fence.token)
    return TAKE, 2, stream, key, token, GROUP, keys.token, keys.alive, int(of_the_dead)


def digest(script: str) -> str:
    """Return what the server knows a script by."""
    return sha1(script.encode()).hexdigest()  # noqa: S324 - the server's choice
