"""The web page: a Gradio page over the gateway's HTTP API, in a process and an environment of its own."""
