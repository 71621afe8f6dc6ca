"""Who of the cast is in a picture: everybody bound to the prompt, each once, where its word acted."""

from .faces import by_faces
from .likeness import Likeness, likeness
from .pictures import by_pictures
from .seen import Seen
from .verdict import THRESHOLD, Kind, Verdict, judge, sentence

__all__ = [
    "THRESHOLD",
    "Kind",
    "Likeness",
    "Seen",
    "Verdict",
    "by_faces",
    "by_pictures",
    "judge",
    "likeness",
    "sentence",
]
