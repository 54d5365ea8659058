"""The model's chat template, with the constant parts of a conversation rendered once.

Most requests differ in the last user message only: the system prompt and the template's own text around it stay. For
each such shape the template is rendered once with a placeholder, and later messages are put between the two parts.
That is exact, not an approximation, for a message that the template cannot treat differently from the placeholder:
one that has no white space at its ends (templates trim) and contains none of the strings the template mentions
(templates test for tags). Any other message is rendered in full, and every message is where the template rewrites what
it is given (the placeholder then does not come out as it went in) or asks for the date. So is a message behind a long
history: keeping that would take memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, nodes

Message = dict[str, Any]
Render = Callable[[Sequence[Message]], str]

# Between private-use characters, which no template and no conversation means: what a template that escapes, changes
# case or splits lines would rewrite.
_PLACEHOLDER = "\ue000 aB \t\"'\\&<>\n\n é\ue001"
_CLOCK = "strftime_now"  # transformers' function for templates: its result is another one tomorrow
# What may be remembered, so that callers cannot fill memory: so many shapes, none with a longer history than this.
_MAX_SHAPES = 256
_MAX_HISTORY = 32_768  # characters before the last message
_MESSAGE = 64  # what a message counts beside its texts, in characters: a history of empty ones takes memory too


class ChatTemplate:
    """Renders conversations with ``render`` (the full template), reusing the constant parts where that is exact."""

    def __init__(self, render: Render, source: str | None) -> None:
        self._render = render
        mentioned = mentioned_strings(source)
        is_special = mentioned is None or any(text in _PLACEHOLDER for text in mentioned)
        self._mentioned = None if is_special else mentioned
        self._shapes: OrderedDict[tuple[Any, ...], tuple[str, str] | None] = OrderedDict()

    def render(self, messages: Sequence[Message]) -> str:
        """Return the text of one conversation, ending where the assistant is to begin."""
        content = self._variable_content(messages)
        if content is None:
            return self._render(messages)
        parts = self._constant_parts(messages)
        if parts is None:
            return self._render(messages)
        return parts[0] + content + parts[1]

    def _variable_content(self, messages: Sequence[Message]) -> str | None:
        """The last message's text, if the template cannot tell it from the placeholder."""
        last = messages[-1]
        if self._mentioned is None or last.keys() != {"role", "content"} or last["role"] != "user":
            return None
        content: str = last["content"]
        if not content or content[0].isspace() or content[-1].isspace():
            return None
        return None if any(text in content for text in self._mentioned) else content

    def _constant_parts(self, messages: Sequence[Message]) -> tuple[str, str] | None:
        shape = tuple((m["role"], m["content"]) for m in messages[:-1] if m.keys() == {"role", "content"})
        if len(shape) != len(messages) - 1 or _length(shape) > _MAX_HISTORY:
            return None
        if shape in self._shapes:
            self._shapes.move_to_end(shape)
            return self._shapes[shape]
        text = self._render([*messages[:-1], {"role": "user", "content": _PLACEHOLDER}])
        before, found, after = text.partition(_PLACEHOLDER)
        self._shapes[shape] = (before, after) if found and _PLACEHOLDER not in after else None
        if len(self._shapes) > _MAX_SHAPES:
            self._shapes.popitem(last=False)
        return self._shapes[shape]


def _length(shape: Iterable[tuple[str, str]]) -> int:
    return sum(len(role) + len(content) + _MESSAGE for role, content in shape)


def mentioned_strings(source: str | None) -> tuple[str, ...] | None:
    """The string constants of a Jinja template's expressions; ``None`` if it cannot be parsed or asks for the date.

    Only strings that stand in a test, a comparison, a filter or a call can change the course of a template; those that
    are merely put out (``{{ '<|im_end|>' }}``) are left aside, and white space where it is not compared with.
    """
    if source is None:
        return None
    try:
        tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(_without_generation_blocks(source))
    except TemplateSyntaxError:
        return None
    if any(name.name == _CLOCK for name in tree.find_all(nodes.Name)):
        return None
    put_out = {id(const) for output in tree.find_all(nodes.Output) for const in _printed_constants(output)}
    constants = [const for const in tree.find_all(nodes.Const) if isinstance(const.value, str)]
    found = {const.value.strip() for const in constants if id(const) not in put_out}
    compared = {const.value for test in tree.find_all(nodes.Compare) for const in test.find_all(nodes.Const)}
    found |= {text for text in compared if isinstance(text, str)}
    return tuple(sorted(text for text in found if text))


def _printed_constants(node: nodes.Node) -> list[nodes.Const]:
    """Constants reached from an output through concatenation (and subscripts' keys) alone."""
    if isinstance(node, nodes.Const):
        return [node]
    if isinstance(node, (nodes.Output, nodes.Add, nodes.Concat, nodes.Getitem, nodes.TemplateData)):
        return [const for child in node.iter_child_nodes() for const in _printed_constants(child)]
    return []


def _without_generation_blocks(source: str) -> str:
    """Drop transformers' own ``{% generation %}`` tags, which plain Jinja does not know."""
    for tag in ("{% generation %}", "{%- generation %}", "{%- generation -%}", "{% generation -%}"):
        source = source.replace(tag, "").replace(tag.replace("generation", "endgeneration"), "")
    return source
