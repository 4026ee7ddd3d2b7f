#include "deq/report/page_frame.h"

#include "deq/report/chart.h"

namespace deq {
namespace {

constexpr const char* kStyle = R"(
:root{color-scheme:light dark;--ink:#1d1d1f;--paper:#fff;--faint:#d8d8dc;--quiet:#6b6b70}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8ea;--paper:#161618;--faint:#3a3a3e;--quiet:#a0a0a6}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1200px;padding:1rem;background:var(--paper);color:var(--ink);font:16px/1.45 system-ui,sans-serif}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin:2rem 0 .5rem}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:1.2rem}
figure{margin:0;min-width:0}figcaption{color:var(--quiet);font-size:.9rem}figcaption b{color:var(--ink)}
svg{width:100%;height:auto;font-size:13px}svg text{fill:var(--quiet)}.grid{stroke:var(--faint)}
polyline{fill:none;stroke-width:2;stroke-linejoin:round;stroke:var(--c)}circle{fill:var(--c)}
.key{display:inline-block;max-width:100%;white-space:normal;overflow-wrap:anywhere;font-size:.85rem;margin-right:.8rem}.key::before{content:"";display:inline-block;width:1em;height:.25em;margin-right:.35em;vertical-align:middle;background:var(--c)}
.d1::before,.d2::before,.d3::before{width:1.6em;background:repeating-linear-gradient(90deg,var(--c) 0 7px,transparent 7px 10px)}
.d2::before{background:repeating-linear-gradient(90deg,var(--c) 0 2px,transparent 2px 5px)}
.d3::before{background:repeating-linear-gradient(90deg,var(--c) 0 9px,transparent 9px 12px,var(--c) 12px 14px,transparent 14px 17px)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem}
th,td{text-align:left;padding:.25rem .8rem .25rem 0;border-bottom:1px solid var(--faint);vertical-align:top}
td{overflow-wrap:anywhere;min-width:8rem}th{font-weight:600}
td.n{text-align:right;min-width:0;font-variant-numeric:tabular-nums;white-space:nowrap}
.heat{font-family:ui-monospace,monospace;font-size:.85rem;line-height:1.7;white-space:pre-wrap;overflow-wrap:anywhere;margin:.4rem 0}
.heat span{background:hsl(calc(220 - 200*var(--h)) 80% 50%/.4);border-radius:2px}.heat .open{outline:1px solid #c9404a}
.memory th,.memory td{min-width:0;padding:.1rem .35rem;text-align:center;white-space:nowrap}
.memory th:first-child{text-align:left;position:sticky;left:0;background:var(--paper)}
.memory td{background:hsl(calc(220 - 200*var(--h)) 80% 50%/.4)}
@media(max-width:600px){svg{font-size:18px}}
.note{color:var(--quiet)}
)";

}  // namespace

std::string framed_page(const std::string& start, const std::string& title,
                        const std::string& body) {
  return start +
         "<html lang=en><head><meta charset=utf-8>\n<meta name=viewport "
         "content='width=device-width,initial-scale=1'>\n<title>deq: " +
         html(title) + "</title>\n<style>" + kStyle + kSeriesColours +
         "</style></head><body>\n<h1>" + html(title) + "</h1>\n" + body + "</body></html>\n";
}

}  // namespace deq
