"""Chat templates written after the manner of well-known models', and one way to render them in full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

from tests.unit.model.tiny_model import CHATML

TRIMMING = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]\n{{ m.content | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)

# Llama 3: header tags, content trimmed, and a default for the system prompt.
LLAMA3 = (
    "{{- bos_token }}"
    "{%- if messages[0]['role'] == 'system' %}"
    "{%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}"
    "{%- else %}{%- set system_message = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\n' + system_message + '<|eot_id|>' }}"
    "{%- for message in messages %}"
    "{%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim"
    " + '<|eot_id|>' }}"
    "{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)

# Reasoning models: tags in earlier answers are cut out, and the last real question is looked for.
THINKING = (
    "{%- set ns = namespace(last=messages|length - 1, found=false) %}"
    "{%- for message in messages[::-1] %}"
    "{%- if not ns.found and message.role == 'user' and not (message.content.startswith('<tool_response>')"
    " and message.content.endswith('</tool_response>')) %}"
    "{%- set ns.found = true %}{%- set ns.last = messages|length - loop.index %}{%- endif %}{%- endfor %}"
    "{%- for message in messages %}{%- set content = message.content %}"
    "{%- if message.role == 'assistant' and '</think>' in content %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{%- if '/no_think' in content %}{%- set content = content.replace('/no_think', '') %}{%- endif %}"
    "{{- '<|im_start|>' + message.role + ('*' if loop.index0 == ns.last else '') + '\n' + content + '<|im_end|>\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n<think>\n' }}{%- endif %}"
)

# Mistral: roles must alternate, no system message.
STRICT = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)

# What rewrites the content: no constant part may be taken from these.
ESCAPING = "{% for m in messages %}{{ m.role }}: {{ m.content | tojson }};{% endfor %}"
LOWERCASE = "{% for m in messages %}{{ m.role }}: {{ m.content | lower }};{% endfor %}"
FIRST_LINE = "{% for m in messages %}{{ m.role }}: {{ m.content.split('\n')[0] }};{% endfor %}"
MULTILINE = "{% for m in messages %}{% if '\n' in m.content %}BLOCK {% endif %}{{ m.content }};{% endfor %}"
FIRST_CHARACTER = "{% for m in messages %}{% if m.content[0] == '/' %}COMMAND {% endif %}{{ m.content }};{% endfor %}"
DATED = "Today: {{ strftime_now('%d %b %Y') }}\n{% for m in messages %}{{ m.content }}{% endfor %}"

PLAIN = {"chatml": CHATML, "trimming": TRIMMING, "llama3": LLAMA3, "thinking": THINKING, "strict": STRICT}
REWRITING = {"escaping": ESCAPING, "lowercase": LOWERCASE, "first-line": FIRST_LINE, "dated": DATED}
CONDITIONAL = {"multiline": MULTILINE, "first-character": FIRST_CHARACTER}


class TemplateRefusal(Exception):
    """What a template raises by ``raise_exception``."""


class FullRender:
    """Renders a template from beginning to end, every time, and counts how often."""

    def __init__(self, source: str) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = self._raise
        environment.globals["strftime_now"] = lambda form: f"day {self.today}"
        environment.filters["tojson"] = repr
        self._template = environment.from_string(source)
        self.today = 1
        self.count = 0

    def __call__(self, messages: Sequence[dict[str, Any]]) -> str:
        self.count += 1
        return self._template.render(
            messages=list(messages), add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
        )

    @staticmethod
    def _raise(text: str) -> None:
        raise TemplateRefusal(text)
