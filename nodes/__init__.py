"""The nodes, one file each; what touches the host's machinery is in `host/`."""

from comfy_api.latest import ComfyExtension, io

from .analyze_face import AnalyzeFace
from .apply_attention import ApplyAttention
from .attention_maps import AttentionMaps
from .bind_subjects import BindSubjects
from .check_cast import CheckCast
from .demo_subject import DemoSubject
from .encode_subject import EncodeSubject
from .host.routes import add_routes
from .load import Load
from .load_demo import LoadDemo
from .load_subject import LoadSubject
from .place_subject import PlaceSubject
from .save_subject import SaveSubject


class MMDiffExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            Load,
            AnalyzeFace,
            EncodeSubject,
            PlaceSubject,
            SaveSubject,
            LoadSubject,
            BindSubjects,
            ApplyAttention,
            AttentionMaps,
            CheckCast,
            LoadDemo,
            DemoSubject,
        ]


async def comfy_entrypoint() -> MMDiffExtension:
    add_routes()
    return MMDiffExtension()
