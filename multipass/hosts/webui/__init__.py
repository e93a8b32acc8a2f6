"""AUTOMATIC1111's webui and the Forge family: the only place that imports `modules` or gradio."""
