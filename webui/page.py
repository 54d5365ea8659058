"""The page as a whole: the language, the tabs, and how it looks. Nothing on it comes from another host."""

from __future__ import annotations

from typing import Any

import gradio as gr

from webui.client import GatewayClient
from webui.labels import QUIET, Labels
from webui.tabs.batch import BatchTab
from webui.tabs.chat import ChatTab
from webui.tabs.status import StatusTab
from webui.texts import Language, preferred, say

# Fonts that the reader's machine has, Chinese ones included; Gradio's own choice would be fetched from elsewhere.
_FONTS = ["system-ui", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", "sans-serif"]
_MONO_FONTS = ["ui-monospace", "Consolas", "Noto Sans Mono CJK SC", "monospace"]
CSS = """
table.plain {width: 100%; border-collapse: collapse; font-size: 0.95em}
table.plain th, table.plain td {text-align: left; vertical-align: top; padding: 4px 10px;
  border-bottom: 1px solid var(--border-color-primary)}
"""


def theme() -> Any:
    """Gradio's plain theme with the fonts of the machine."""
    return gr.themes.Base(
        primary_hue="blue",
        font=[gr.themes.Font(name) for name in _FONTS],
        font_mono=[gr.themes.Font(name) for name in _MONO_FONTS],
    )


def build_page(client: GatewayClient) -> Any:
    """The Gradio page over one gateway."""
    labels = Labels()
    with gr.Blocks(title=say("en", "page.title"), analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        with gr.Row():
            with gr.Column(scale=4):
                title = gr.Markdown(elem_id="title")
            with gr.Column(scale=1, min_width=240):
                language = labels.put(
                    gr.Radio([("English", "en"), ("中文", "zh")], value="en", elem_id="language"), label="page.language"
                )
        with gr.Tabs():
            chat = ChatTab(client, labels, language)
            batch = BatchTab(client, labels, language)
            status = StatusTab(client, labels, language)
        status.rests_with([chat.tab, batch.tab])

        def relabel(chosen: Language) -> list[Any]:
            return [f"## {say(chosen, 'page.title')}", *labels.updates(chosen)]

        async def greet(request: gr.Request) -> list[Any]:
            wanted = preferred(request.headers.get("accept-language", ""))
            return [await chat.first_system_prompt(), wanted, *relabel(wanted)]

        # `input` is the reader's own choice; `greet` has said the rest in one go.
        labelled = [title, *labels.components]
        page.load(greet, None, [chat.system_prompt, language, *labelled], **QUIET)
        language.input(relabel, language, labelled, **QUIET)
    return page
