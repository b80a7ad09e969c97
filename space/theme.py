"""How the Space looks: paper and ink, one quiet accent, so that the expressions' own colours stand out."""

import gradio as gr
from gradio.themes.utils import colors, sizes

THEME = gr.themes.Base(
    primary_hue=colors.teal,
    neutral_hue=colors.stone,
    radius_size=sizes.radius_md,
    font=("system-ui", "sans-serif"),
    font_mono=("ui-monospace", "monospace"),
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="#141210",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_400",
    block_background_fill="white",
    block_background_fill_dark="#1f1c1a",
    block_border_width="1px",
    block_label_background_fill="*neutral_100",
    block_label_text_color="*neutral_700",
    block_label_text_color_dark="*neutral_200",
    block_title_text_color="*neutral_700",
    block_title_text_color_dark="*neutral_200",
    input_background_fill="white",
    input_placeholder_color="*neutral_600",
    input_placeholder_color_dark="*neutral_400",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_text_color="white",
    checkbox_background_color_selected="*primary_700",
    checkbox_background_color_selected_dark="*primary_600",
    checkbox_label_background_fill_selected="*primary_700",
    checkbox_label_background_fill_selected_dark="*primary_800",
    checkbox_label_text_color_selected="white",
    checkbox_label_text_color_selected_dark="white",
    slider_color="*primary_700",
    color_accent="*primary_700",
    link_text_color="*primary_800",
    link_text_color_dark="*primary_300",
)

CSS = """
.dark { --color-accent: var(--primary-400); }
.gradio-container > main { max-width: 1240px; margin: 0 auto; }
footer .divider { display: none; }
#title h1 { margin: 0; letter-spacing: -0.02em; }
#title p { margin-top: 4px; color: var(--body-text-color-subdued); }
.status p { margin: 0; }
.gradio-container .html-container { padding: 0; }
table:is(.bars, .heat, .sortable) { border-collapse: collapse; font-variant-numeric: tabular-nums; }
table.bars caption { padding-bottom: 6px; text-align: left; }
table.bars { width: 100%; }
table.bars :is(th, td) { padding: 3px 0; }
table.bars th { width: 5.5em; text-align: left; font-weight: 400; }
table.bars td:last-child { width: 4.2em; padding-left: 6px; text-align: right; }
table.bars div { height: 1em; min-width: 2px; border-radius: 3px; }
table.bars tr.top :is(th, td) { font-weight: 700; }
table.heat th { padding: 4px 7px; text-align: left; font-weight: 400; }
table.heat td { min-width: 3em; padding: 4px 7px; text-align: right;
  background: color-mix(in srgb, var(--primary-500) calc(var(--share) * 0.55), transparent); }
table.sortable { width: 100%; }
table.sortable :is(th, td) { padding: 6px 8px; vertical-align: bottom; }
table.sortable :is(td, th + th) { text-align: right; }
table.sortable th:first-child { text-align: left; }
table.sortable button { text-align: inherit; }
table:is(.heat, .sortable) th:first-child { position: sticky; left: 0;
  background: var(--body-background-fill); white-space: nowrap; }
table.sortable tr { border-bottom: 1px solid var(--border-color-primary); }
table.sortable a { text-decoration: underline; color: var(--link-text-color); }
table.sortable button { font-weight: 600; cursor: pointer; }
table.sortable [aria-sort] button::after { content: "\\a0↕"; opacity: 0.5; }
table.sortable [aria-sort=ascending] button::after { content: "\\a0↑"; opacity: 1; }
table.sortable [aria-sort=descending] button::after { content: "\\a0↓"; opacity: 1; }
.scroll { overflow-x: auto; }
#zoo-card table { display: block; max-width: 100%; overflow-x: auto; }
#zoo-card :is(th, td) { overflow-wrap: normal; word-break: normal; }
#png, #json { display: none !important; } /* Gradio shows them again with what is around them */
ul.legend { display: flex; flex-wrap: wrap; gap: 4px 14px; margin: 0; padding: 0; list-style: none; }
ul.legend span { display: inline-block; width: 0.75em; height: 0.75em; margin-right: 6px; }
#face .grid-container { grid-template-columns: repeat(auto-fill, minmax(110px, 148px));
  grid-auto-rows: auto; }
#face .grid-wrap { min-height: 0; height: auto; }
p.unsure { border-left: 3px solid var(--primary-600); margin: 8px 0; padding-left: 10px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 16px; }
.cards article { border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg);
  padding: 12px; background: var(--block-background-fill); }
.cards h2 { margin: 0 0 2px; font-size: 1em; font-weight: 600; }
.cards img { width: 100%; border-radius: var(--radius-md); margin-top: 8px; }
.cards p { margin: 4px 0; }
@media (min-width: 700px) {
  #live { display: grid; grid-template: auto 1fr / 2fr 3fr; }
  #live > :nth-child(2) { grid-row: span 2; }
}
#live-frame img { width: 100%; border-radius: var(--radius-lg); }
#live-speed p { margin: 0; font-variant-numeric: tabular-nums; }
svg.strip { display: block; width: 100%; height: 44px; border-radius: 3px;
  background: color-mix(in srgb, var(--body-text-color) 8%, transparent); }
.ends { display: flex; justify-content: space-between; color: var(--body-text-color-subdued); }
"""

HEAD = """
<script>
// A format that the browser cannot show (HEIC in most) leaves no broken picture: the result is shown anyway.
for (const kind of ["error", "load"])
  document.addEventListener(kind, ({ target }) => {
    if (target.tagName === "IMG") target.style.visibility = kind === "error" ? "hidden" : "";
  }, true);
// Screen readers say what changes in these places, not the seconds that tick, and what the examples are. The
// camera's button is named as it reads, Record or Stop, and not "capture photo".
new MutationObserver(() => {
  for (const place of document.querySelectorAll(".status:not([role])")) place.setAttribute("role", "status");
  for (const clock of document.querySelectorAll(".status :is(.progress-text, .meta-text):not([aria-hidden])"))
    clock.ariaHidden = "true";
  for (const mark of document.querySelectorAll("[role=graphics-symbol]:not([aria-label], [aria-hidden])"))
    mark.ariaHidden = "true"; // a plot's invisible handle for the mouse
  document.querySelector("#camera .capture-button[aria-label]")?.removeAttribute("aria-label");
  for (const example of document.querySelectorAll(".gallery-item:not([aria-label])")) {
    const name = example.querySelector("img, video")?.src.match(/([^/]+)\\.\\w+$/)?.[1];
    if (name) example.ariaLabel = `Example ${name}`;
  }
}).observe(document, { childList: true, subtree: true, attributeFilter: ["src"] });
</script>
"""
