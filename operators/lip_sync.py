"""Makes the rig speak what is said in a sound file, a video, or a sound strip of the sequencer."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import BoolProperty, IntProperty, StringProperty

from ..blender_addon import active, lip_sync, tasks
from ..blender_addon.errors import EffigyError
from ..blender_addon.file_choice import choose_file
from ..blender_addon.performance_properties import intensity_property, smoothing_property
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_lip_sync(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.lip_sync"
    bl_label = "Lip Sync"
    bl_description = (
        "Make this rig speak what is said in a sound or a video, or follow Audio2Face's curves of it (.json, .csv). "
        "Mouth and jaw are added as strips above the rig's performance; for the same sound again, the strips that it "
        "has get new keys. English is understood; other languages need a phone table (TextGrid, Rhubarb's .tsv, "
        "Papagayo's .pgo or .dat) of the same name beside the sound"
    )
    bl_options = {"REGISTER", "UNDO"}

    filepath: StringProperty(subtype="FILE_PATH", options={"HIDDEN", "SKIP_SAVE"})
    filter_glob: StringProperty(
        default="*.wav;*.mp3;*.flac;*.ogg;*.m4a;*.aac;*.opus;*.aif;*.aiff;*.mp4;*.mov;*.mkv;*.webm;*.avi;*.json;*.csv;*.tsv",
        options={"HIDDEN"},
    )
    text: StringProperty(
        name="Text",
        options={"SKIP_SAVE"},
        description="What is said, in English, word for word. The mouth then follows the sound more exactly. May stay "
        "empty",
    )
    use_table: BoolProperty(
        name="Phone Table",
        default=True,
        description="Where no text is given, take the phones from a TextGrid, Rhubarb's .tsv or Papagayo's .pgo or "
        ".dat of the same name beside the sound, if there is one",
    )
    phones: StringProperty(
        name="Phone File", options={"HIDDEN", "SKIP_SAVE"}, description="The file of a phone table, for scripts"
    )
    intensity: intensity_property("Strength of the mouth's shapes. Lips that must meet do so in any case")
    smoothing: smoothing_property(
        "Seconds over which the mouth is smoothed. Lips that must meet do so in any case", soft_max=0.1
    )
    frame_start: IntProperty(name="Start Frame", default=1, description="Frame of the scene at which the sound begins")
    add_sound: BoolProperty(
        name="Add Sound", default=True, description="Add the sound to the sequencer, if it is not there"
    )
    wait: BoolProperty(
        name="Wait", options={"HIDDEN", "SKIP_SAVE"}, description="Return only when everything is done, for scripts"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context) and active.need_rig(context).is_editable

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        self.frame_start = context.scene.frame_start
        for strip in lip_sync.strips_in(context.scene)[:1]:
            if (sound := lip_sync.file_of(strip)) is not None:
                self.filepath, self.frame_start = str(sound), lip_sync.start_of(strip)
        return choose_file(self, context)

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        for name in ("text", "intensity", "smoothing", "frame_start", "add_sound", "use_table"):
            layout.prop(self, name)

    def run(self, context: bpy.types.Context) -> None:
        if not self.filepath:
            raise EffigyError("Choose a sound, or a video with sound.")
        sound = Path(bpy.path.abspath(self.filepath)).absolute()
        phones = Path(bpy.path.abspath(self.phones)).absolute() if self.phones else None
        if phones is None and self.use_table and not self.text.strip() and not lip_sync.has_curves(sound):
            phones = lip_sync.table_beside(sound)
        task = lip_sync.speak(
            active.need_rig(context),
            context.scene,
            sound,
            text=self.text,
            phones=phones,
            intensity=self.intensity,
            smoothing=self.smoothing,
            frame_start=self.frame_start,
            add_sound=self.add_sound,
        )
        tasks.wait_if_asked(self, task)


classes = (EFFIGY_OT_lip_sync,)
