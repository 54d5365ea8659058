"""All that the page says, in English and Chinese."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)


class Text(NamedTuple):
    """One sentence or label; ``{name}`` stands for a value, the same ones in both."""

    en: str
    zh: str


TEXTS: dict[str, Text] = {
    # the page
    "page.title": Text("Ask the model", "向模型提问"),
    "page.language": Text("Language", "语言"),
    # chat
    "chat.tab": Text("Chat", "对话"),
    "chat.answer": Text("Conversation", "对话内容"),
    "chat.question": Text("Question", "问题"),
    "chat.placeholder": Text("Type a question and press Enter", "输入问题后按回车"),
    "chat.send": Text("Send", "发送"),
    "chat.stop": Text("Stop", "停止"),
    "chat.clear": Text("New conversation", "新对话"),
    "chat.empty": Text("Please type a question first.", "请先输入问题。"),
    "chat.running": Text("The model is answering …", "模型正在回答……"),
    "chat.done": Text(
        "{tokens} tokens in {seconds} s ({rate} tokens per second)",
        "{tokens} 个词元，用时 {seconds} 秒（每秒 {rate} 个词元）",
    ),
    "chat.cut": Text(
        "{tokens} tokens in {seconds} s; cut at the greatest length",
        "{tokens} 个词元，用时 {seconds} 秒；已达最大长度而截断",
    ),
    "chat.stopped": Text("Stopped. What had come is kept.", "已停止，已收到的内容保留。"),
    # parameters
    "parameters.title": Text("Generation parameters", "生成参数"),
    "parameters.max_tokens": Text("Greatest length (tokens)", "最大长度（词元数）"),
    "parameters.temperature": Text("Temperature (0: always the likeliest token)", "温度（0：总取最可能的词元）"),
    "parameters.top_p": Text("Top-p", "Top-p（核采样）"),
    "parameters.history": Text("Send earlier turns along", "附带之前的对话"),
    # system prompt
    "system.title": Text("System prompt", "系统提示词"),
    "system.prompt": Text("For this conversation (empty: none)", "用于本次对话（留空则不用）"),
    "system.read": Text("Read the service's default", "读取服务的默认值"),
    "system.token": Text("Admin token", "管理员令牌"),
    "system.write": Text("Make it the service's default", "设为服务的默认值"),
    "system.written": Text("The service's default is replaced.", "已替换服务的默认系统提示词。"),
    "system.was_read": Text("This is the service's default.", "这是服务的默认系统提示词。"),
    "system.no_token": Text("Please enter the admin token.", "请输入管理员令牌。"),
    # reference material
    "material.title": Text("Reference material", "参考资料"),
    "material.text": Text(
        "Text (the passages that fit a question best go before it)", "文本（与问题最相关的段落会放在问题之前）"
    ),
    "material.file": Text("Or a text file (.txt, .md)", "或上传文本文件（.txt、.md）"),
    "material.count": Text("Passages for a question", "每个问题的段落数"),
    "material.used": Text("Passages sent with the question", "随问题发送的段落"),
    "material.none": Text("No passage shares a word with the question.", "没有与问题相关的段落。"),
    "material.heading": Text("Reference material:", "参考资料："),
    "material.ask": Text("Answer with the help of the material: ", "请结合参考资料回答："),
    # batch
    "batch.tab": Text("Batch", "批量"),
    "batch.file": Text("Questions: a JSONL file", "问题：JSONL 文件"),
    "batch.shapes": Text(
        "One JSON object a line: `prompt` or `instruction` or `question`, or `messages`; with `reference`, `output` or "
        "`answer` the answers are scored (ROUGE-L F1).",
        "每行一个 JSON 对象：`prompt`、`instruction`、`question` 或 `messages`；若有 `reference`、`output` 或 "
        "`answer`，则给答案打分（ROUGE-L F1）。",
    ),
    "batch.at_a_time": Text("Questions in one request", "每个请求的问题数"),
    "batch.max_tokens": Text(
        "Greatest length (tokens; 0: by the kind of question)", "最大长度（词元数；0：按问题类型）"
    ),
    "batch.start": Text("Ask all", "全部提问"),
    "batch.stop": Text("Stop", "停止"),
    "batch.no_file": Text("Please choose a file first.", "请先选择文件。"),
    "batch.progress": Text("{done} of {total} answered, {seconds} s", "已回答 {done} / {total}，{seconds} 秒"),
    "batch.done": Text(
        "Done: {total} questions in {seconds} s, {failed} without an answer.",
        "完成：{total} 个问题，用时 {seconds} 秒，{failed} 个没有答案。",
    ),
    "batch.stopped": Text(
        "Stopped: {done} of {total} answered in {seconds} s.", "已停止：{seconds} 秒内回答了 {done} / {total}。"
    ),
    "batch.score": Text(" Mean ROUGE-L F1: {score}.", " ROUGE-L F1 平均分：{score}。"),
    "batch.no_score": Text(
        " No scores: jieba and rouge-chinese are not installed.", " 未打分：没有安装 jieba 和 rouge-chinese。"
    ),
    "batch.download": Text("Download the results (JSONL)", "下载结果（JSONL）"),
    "batch.number": Text("No.", "序号"),
    "batch.question": Text("Question", "问题"),
    "batch.answer": Text("Answer", "答案"),
    "batch.one_score": Text("ROUGE-L", "ROUGE-L"),
    "batch.shown": Text(
        "The first {shown} of {total}; the file has all.", "仅显示 {total} 条中的前 {shown} 条，全部见下载文件。"
    ),
    # status
    "status.tab": Text("Status", "状态"),
    "status.state": Text("State", "状态"),
    "status.state.ready": Text("ready", "就绪"),
    "status.state.warming": Text("warming up: the model is loading", "预热中：模型正在加载"),
    "status.state.recovering": Text("recovering from a fault", "故障恢复中"),
    "status.model": Text("Model", "模型"),
    "status.backend": Text("Backend", "后端"),
    "status.length": Text("Longest prompt and answer (tokens)", "提示与答案的最大总长（词元）"),
    "status.in_flight": Text("Prompts in hand", "处理中的提示"),
    "status.prompts": Text("Prompts so far", "累计提示数"),
    "status.prompt_rate": Text("Prompts per second", "每秒提示数"),
    "status.token_rate": Text("Generated tokens per second", "每秒生成词元数"),
    "status.tokens": Text("Generated tokens so far", "累计生成词元数"),
    "status.engine": Text("Engine", "引擎"),
    "status.running": Text("Running", "运行中"),
    "status.waiting": Text("Waiting", "等待中"),
    "status.since_step": Text("Seconds since its last step", "距上一步秒数"),
    "status.at": Text(
        "As of {time}, every {seconds} s while this tab is open.", "截至 {time}；此页打开时每 {seconds} 秒更新。"
    ),
    # errors: one sentence each
    "error.unreachable": Text(
        "The service at {url} cannot be reached; is it running?", "无法连接到服务 {url}，请确认它正在运行。"
    ),
    "error.interrupted": Text(
        "The connection to the service broke before the answer was complete.", "答案尚未完整，与服务的连接就中断了。"
    ),
    "error.warming": Text(
        "The model is not ready yet (it is loading or recovering); please try again in {seconds} seconds.",
        "模型尚未就绪（正在加载或恢复），请 {seconds} 秒后重试。",
    ),
    "error.busy": Text(
        "The service has its hands full; please try again in {seconds} seconds.", "服务繁忙，请 {seconds} 秒后重试。"
    ),
    "error.stopping": Text("The service is shutting down.", "服务正在关闭。"),
    "error.bad_request": Text(
        "The service does not accept this request: {message}.", "服务不接受这个请求：{message}。"
    ),
    "error.unauthorized": Text(
        "The service does not accept the key or token that was sent.", "服务不接受所提供的密钥或令牌。"
    ),
    "error.forbidden": Text(
        "The service does not allow this: it was started without ADMIN_TOKEN.",
        "服务不允许此操作：启动时没有设置 ADMIN_TOKEN。",
    ),
    "error.too_large": Text("The request is too large for the service: {message}.", "请求超过服务的上限：{message}。"),
    "error.deadline": Text(
        "The service did not finish the answer within its time limit.", "服务未能在时限内完成回答。"
    ),
    "error.other": Text("The service answered with error {status}: {message}.", "服务返回错误 {status}：{message}。"),
    "error.not_utf8": Text("{file} is not a text file in UTF-8.", "{file} 不是 UTF-8 文本文件。"),
    "error.no_questions": Text("{file} has no questions in it.", "{file} 中没有问题。"),
    "error.bad_line": Text(
        "Line {number} is not a JSON object with a question in it.", "第 {number} 行不是含有问题的 JSON 对象。"
    ),
}


def say(language: Language, key: str, **values: object) -> str:
    """The text of ``key``, filled with ``values``."""
    text = TEXTS[key]
    return (text.zh if language == "zh" else text.en).format(**values)


def preferred(accept_language: str) -> Language:
    """The language that a browser prefers, of those the page has; English where it wants neither."""
    for wish in accept_language.split(","):
        name = wish.partition(";")[0].strip().lower().partition("-")[0]
        if name in LANGUAGES:
            return name
    return "en"
