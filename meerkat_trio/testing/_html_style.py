"""What the page of a report looks like. Text only."""

from __future__ import annotations

from typing import Final

__all__ = ["LEGEND", "STYLE"]

LEGEND: Final = """<section class="legend"><h2>How to read the lanes</h2><ul>
<li><i class="key k-box"></i> a task runs, from one checkpoint to the next; inside: the line at which it was
 parked before</li>
<li><i class="key k-line"></i> it waits at that line; a dashed red line through all lanes is what was found</li>
<li><i class="key k-cancel"></i> here the explorer cancels a victim</li>
<li><i class="key k-raise"></i> a Cancelled is raised in this step (grey: nobody has cancelled yet, a deadline of the
 code has passed)</li>
<li><i class="key k-wake"></i> one task let the other run; a clock on a box: a deadline, or a cancellation, did</li>
<li>shaded from one clock to the next: one instant of virtual time; steps stand in order, widths mean nothing</li>
<li>pale: after the finding; the explorer brings the run to its end</li>
<li>point at anything to read all of it</li></ul></section>"""

STYLE: Final = """
:root{color-scheme:light dark;--page:#fff;--ink:#1f2328;--soft:#59636e;--rule:#d1d9e0;--tint:#f6f8fa;--box:#ddf4ff;
--edge:#0969da;--red:#d1242f;--redtint:#ffebe9;--orange:#bc4c00;--orangetint:#fff1e5;--green:#1a7f37;--wake:#6e7781;
--log:#116329;--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media(prefers-color-scheme:dark){:root{--page:#0d1117;--ink:#e6edf3;--soft:#9198a1;--rule:#3d444d;--tint:#151b23;
--box:#12304f;--edge:#58a6ff;--red:#ff6b62;--redtint:#3c1618;--orange:#f0883e;--orangetint:#3d2512;--green:#3fb950;
--wake:#8b949e;--log:#56d364}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem clamp(.6rem,2.5vw,2.5rem) 3rem;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
header{display:flex;flex-wrap:wrap;gap:.2rem 1rem;align-items:baseline;border-bottom:1px solid var(--rule)}
h1{font-size:1.35rem;margin:.2rem 0}h2{font-size:1.05rem;font-weight:400;margin:0 0 .6rem}
.verdict{margin:0;font-weight:600}.bad{color:var(--red)}.good{color:var(--green)}
section{margin:1.6rem 0}.failure h2 b{color:var(--red)}
.tag{font-size:.8rem;border:1px solid var(--orange);color:var(--orange);border-radius:9px;padding:0 .5em}
pre,code,table,.places{font-family:var(--mono);font-size:12.5px}
pre{margin:0;white-space:pre-wrap}
.message{background:var(--redtint);border-left:3px solid var(--red);padding:.5rem .8rem}
.warning{background:var(--orangetint);border-left:3px solid var(--orange);padding:.4rem .8rem}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.25rem 1rem;margin:.9rem 0}
dt{color:var(--soft)}dd{margin:0}
.copy{user-select:all;background:var(--tint);border:1px solid var(--rule);border-radius:4px;padding:.1rem .4rem;
cursor:copy}
.jumps,.cut{color:var(--soft);margin:.4rem 0}.jumps a{color:var(--edge);margin-left:.6em}
.swimming{display:flex;border:1px solid var(--rule);border-radius:6px;overflow:hidden}
.names{flex:none;max-width:22vw;border-right:1px solid var(--rule);background:var(--tint)}
.name{display:flex;align-items:center;padding:0 .7rem 4px;border-bottom:1px solid var(--rule);font-weight:600;
font-size:13px}
.name span{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.scroll{overflow-x:auto;flex:1 1 0;min-width:0}.scroll:focus-visible{outline:2px solid var(--edge);outline-offset:-2px}
svg{display:block}.swim text{font:11px var(--mono);fill:var(--ink)}
.swim .lane line{stroke:var(--rule)}.swim .instant{fill:var(--soft);opacity:.09}
.swim .time{font-weight:600}.swim .event{fill:var(--soft);font-size:10px;text-anchor:middle}
.clock line{stroke:var(--soft);stroke-dasharray:1 4}.face circle{fill:var(--page);stroke:var(--soft);stroke-width:1.3}
.face path{fill:none;stroke:var(--soft);stroke-width:1.3}
.gap rect{fill:var(--tint);stroke:var(--rule);stroke-dasharray:5 4}.swim .gap text{text-anchor:middle;fill:var(--soft)}
.box rect{fill:var(--box);stroke:var(--edge);stroke-width:1.2}.swim .where{text-anchor:middle}
.box.raised rect{stroke:var(--orange);fill:var(--orangetint)}.box .end{stroke:var(--ink);stroke-width:4;fill:none}
.box.after{opacity:.45}.cross circle{fill:var(--orange)}.cross.quiet circle{fill:var(--soft)}
.cross path{stroke:var(--page);stroke-width:2;fill:none}
.swim .declares{fill:var(--soft);font-size:10px}.swim .log{fill:var(--log);font-size:10px}
.parked line{stroke:var(--edge);stroke-width:1.2;opacity:.6}.swim .parked text{font-size:10px;fill:var(--soft)}
.wakes{fill:none;stroke:var(--wake);stroke-width:1.2}.tip{fill:var(--wake)}.wakes.after{opacity:.4}
.cancels{stroke:var(--red);stroke-width:2.5}.stops{stroke:var(--soft);stroke-dasharray:3 3}
.finds{stroke:var(--red);stroke-width:1.6;stroke-dasharray:6 4}.finds.later{opacity:.4}
.spot{fill:none}:target>.spot{fill:var(--edge);opacity:.08}:target>line{stroke-width:4}
.swim .pill text{fill:var(--page);font-weight:600}.pill.cancels rect,.pill.finds rect{fill:var(--red);stroke:none}
.pill.stops rect{fill:var(--soft);stroke:none}.pill{stroke:none}
details{margin:.5rem 0}summary{cursor:pointer;color:var(--soft)}
table{border-collapse:collapse;margin-top:.4rem}td,th{padding:.05rem .9rem .05rem 0;text-align:left;white-space:pre}
th{color:var(--soft);font-weight:400}tr.CANCELS,tr.finding{color:var(--red);font-weight:600}
tr.raises{color:var(--orange)}
tr.log{color:var(--log)}tr.cut{color:var(--soft)}
.places{columns:24ch;padding-left:1.2rem;margin:.3rem 0}
.percent{margin:.6rem 0}.bar{display:block;max-width:26rem;height:7px;border-radius:4px;background:var(--rule);
margin-top:.3rem}
.bar span{display:block;height:100%;border-radius:4px;background:var(--green)}
.legend ul{list-style:none;padding:0;margin:0;color:var(--soft);font-size:13.5px}.legend li{padding-left:38px;
position:relative}
.key{position:absolute;left:0;top:.25em;width:26px;height:14px}.k-box{border:1.2px solid var(--edge);
background:var(--box);
border-radius:3px}.k-line{border-top:1.5px solid var(--edge);top:.75em}.k-cancel{border-left:2.5px solid var(--red);
left:12px}
.k-raise{width:14px;left:6px;border-radius:7px;background:var(--orange)}.k-wake{border-bottom:1.2px solid var(--wake);
border-right:1.2px solid var(--wake);border-radius:0 0 9px 0;height:9px}
@media(max-width:600px){dl{grid-template-columns:minmax(0,1fr)}dd{margin-bottom:.4rem}.name{padding:0 .35rem 4px;
font-size:11px}}
@media print{.scroll{overflow:visible}}
"""
