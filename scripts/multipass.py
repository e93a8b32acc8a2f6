"""The entry that the webui loads."""

from modules import script_callbacks, scripts

from multipass.hosts.webui import api, memo, models, script, settings, ui, xyz


class Multipass(scripts.Script):
    """One picture, several checkpoints. Its two arguments are `enabled` and `plan`, and stay so."""

    def title(self):
        return "Multipass"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        panel = ui.build("img2img" if is_img2img else "txt2img")
        self.infotext_fields = panel.infotext_fields
        return [panel.enabled, panel.plan]

    def before_process(self, p, *args):
        script.before_process(p, *args)

    def process(self, p, *args):
        script.process(p)

    def before_process_batch(self, p, *args, **kwargs):
        script.before_process_batch(p)

    def postprocess_batch(self, p, *args, images, **kwargs):
        script.postprocess_batch(p, images)

    def postprocess(self, p, processed, *args):
        script.postprocess(p, processed)


script_callbacks.on_app_started(api.register)
script_callbacks.on_model_loaded(models.note_loaded)
script_callbacks.on_before_ui(xyz.register)
script_callbacks.on_ui_settings(settings.register)
script_callbacks.on_app_started(models.register)
script_callbacks.on_app_started(memo.register)
