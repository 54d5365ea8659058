"""The chat tab: a streamed conversation, its parameters, its system prompt, and reference material."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gradio as gr

from webui.client import MAX_TOKENS, GatewayClient, Generation
from webui.conversation import Turn, Wish, ask
from webui.errors import BadUpload, WebError
from webui.labels import QUIET, STREAMED, Labels
from webui.stream import Stops
from webui.texts import Language, say

Update = tuple[Any, ...]


class ChatTab:
    """Layout and behaviour. ``language`` is the page's selector."""

    def __init__(self, client: GatewayClient, labels: Labels, language: Any) -> None:
        self._client = client
        self._stops = Stops()
        with labels.put(gr.Tab(id="chat", elem_id="tab-chat"), label="chat.tab") as self.tab, gr.Row():
            with gr.Column(scale=3):
                self._lay_conversation(labels)
            with gr.Column(scale=2, min_width=320):
                self._lay_parameters(labels)
                self._lay_system_prompt(labels, language)
                self._lay_material(labels)
        self._connect(language)

    def _lay_conversation(self, labels: Labels) -> None:
        self.conversation = labels.put(
            gr.Chatbot(elem_id="conversation", height=460, buttons=["copy"], feedback_options=None), label="chat.answer"
        )
        self.notice = gr.Markdown(elem_id="chat-notice")
        self.question = labels.put(
            gr.Textbox(elem_id="question", lines=1, max_lines=8),
            label="chat.question",
            placeholder="chat.placeholder",
        )
        with gr.Row():
            self.send = labels.put(gr.Button(variant="primary", elem_id="send"), value="chat.send")
            self.stop = labels.put(gr.Button(elem_id="stop"), value="chat.stop")
            self.clear = labels.put(gr.Button(elem_id="clear"), value="chat.clear")
        self.used = labels.put(
            gr.Textbox(elem_id="passages", lines=4, max_lines=14, interactive=False, visible=False),
            label="material.used",
        )

    def _lay_parameters(self, labels: Labels) -> None:
        with labels.put(gr.Accordion(open=True, elem_id="parameters"), label="parameters.title"):
            self.max_tokens = labels.put(
                gr.Slider(1, MAX_TOKENS, value=256, step=1, elem_id="max-tokens"), label="parameters.max_tokens"
            )
            self.temperature = labels.put(
                gr.Slider(0, 2, value=0, step=0.05, elem_id="temperature"), label="parameters.temperature"
            )
            self.top_p = labels.put(gr.Slider(0.05, 1, value=1, step=0.05, elem_id="top-p"), label="parameters.top_p")
            self.history = labels.put(gr.Checkbox(value=True, elem_id="history"), label="parameters.history")

    def _lay_system_prompt(self, labels: Labels, language: Any) -> None:
        with labels.put(gr.Accordion(open=False, elem_id="system"), label="system.title"):
            self.system_prompt = labels.put(gr.Textbox(lines=4, elem_id="system-prompt"), label="system.prompt")
            read = labels.put(gr.Button(size="sm", elem_id="system-read"), value="system.read")
            token = labels.put(gr.Textbox(type="password", elem_id="admin-token"), label="system.token")
            write = labels.put(gr.Button(size="sm", elem_id="system-write"), value="system.write")
            notice = gr.Markdown(elem_id="system-notice")
        read.click(self._read_system_prompt, [language], [self.system_prompt, notice], **QUIET)
        write.click(self._write_system_prompt, [language, self.system_prompt, token], [notice], **QUIET)

    def _lay_material(self, labels: Labels) -> None:
        with labels.put(gr.Accordion(open=False, elem_id="material"), label="material.title"):
            self.material = labels.put(
                gr.Textbox(lines=6, max_lines=12, elem_id="material-text"), label="material.text"
            )
            self.material_file = labels.put(
                gr.File(file_types=[".txt", ".md"], elem_id="material-file", height=110), label="material.file"
            )
            self.passages = labels.put(
                gr.Slider(1, 8, value=3, step=1, elem_id="passage-count"), label="material.count"
            )

    def _connect(self, language: Any) -> None:
        settings = [self.max_tokens, self.temperature, self.top_p, self.history]
        settings += [self.system_prompt, self.material, self.passages]
        for event in (self.send.click, self.question.submit):
            event(
                self._answer,
                [language, self.question, self.conversation, *settings],
                [self.question, self.conversation, self.notice, self.used],
                **STREAMED,
            )
        # Not queued: a stop must not wait behind what it is to stop.
        self.stop.click(self._stop, None, None, **QUIET)
        self.clear.click(self._clear, None, [self.conversation, self.notice, self.used], **QUIET)
        self.material_file.upload(_read_material, [language, self.material_file], [self.material, self.notice], **QUIET)

    async def first_system_prompt(self) -> str:
        """What a new page starts with: the service's own, if it can be asked."""
        try:
            return await self._client.system_prompt()
        except WebError:
            return ""

    async def _answer(
        self,
        language: Language,
        question: str,
        conversation: list[dict[str, Any]],
        max_tokens: float,
        temperature: float,
        top_p: float,
        with_history: bool,
        system_prompt: str,
        material: str,
        passages: float,
        request: gr.Request,
    ) -> AsyncGenerator[Update, None]:
        if not question.strip():
            yield gr.skip(), gr.skip(), say(language, "chat.empty"), gr.skip()
            return
        generation = Generation(int(max_tokens), float(temperature), float(top_p))
        wish = Wish(generation, system_prompt or "", with_history, material or "", int(passages))
        session = request.session_hash or ""
        stop = self._stops.start(session)
        try:
            async with aclosing(ask(self._client, language, question, conversation, wish, stop)) as turns:
                async for turn in turns:
                    yield _shown(conversation, turn)
        finally:
            self._stops.finish(session, stop)

    def _stop(self, request: gr.Request) -> None:
        self._stops.stop(request.session_hash or "")

    def _clear(self, request: gr.Request) -> Update:
        self._stop(request)
        return [], "", gr.update(value="", visible=False)

    async def _read_system_prompt(self, language: Language) -> Update:
        try:
            return await self._client.system_prompt(), say(language, "system.was_read")
        except WebError as exc:
            return gr.skip(), exc.sentence(language)

    async def _write_system_prompt(self, language: Language, text: str, token: str) -> str:
        if not token.strip():
            return say(language, "system.no_token")
        try:
            await self._client.replace_system_prompt(text, token.strip())
        except WebError as exc:
            return exc.sentence(language)
        return say(language, "system.written")


def _shown(conversation: list[dict[str, Any]], turn: Turn) -> Update:
    """The turn as the outputs of an answer: question, conversation, notice, passages."""
    passages = gr.update(value=turn.passages, visible=bool(turn.passages))
    return "", [*conversation, *turn.messages()], turn.notice, passages


def _read_material(language: Language, file: str | None) -> Update:
    if file is None:
        return gr.skip(), gr.skip()
    try:
        return Path(file).read_text(encoding="utf-8-sig"), ""
    except UnicodeDecodeError:
        return gr.skip(), BadUpload("error.not_utf8", file=Path(file).name).sentence(language)
