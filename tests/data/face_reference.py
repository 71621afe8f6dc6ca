"""Record face_reference.npz: what insightface itself finds in a made-up photo, with made-up networks of its layout.

Run with insightface 0.7.3 and OpenCV 4 (5 rounds its warps differently): python tests/data/face_reference.py
"""

import tempfile
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
from insightface.app import FaceAnalysis
from insightface.utils import face_align
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(45)  # no two faces equally sure, none near the threshold: the same everywhere
SIZES = {"reference": 640, "smaller": 448, "tiny": 128}


def save(nodes, weights, inputs, outputs):
    graph = helper.make_graph(
        nodes,
        "made_up",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, inputs)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return np.frombuffer(model.SerializeToString(), np.uint8)


def detector():
    """Nine outputs of random linear functions of 8 x 8 blocks, averaged for the coarser strides."""
    nodes = [helper.make_node("Conv", ["image", "stem"], ["at8"], strides=[8, 8])]
    nodes += [
        helper.make_node("AveragePool", [f"at{s}"], [f"at{2 * s}"], kernel_shape=[2, 2], strides=[2, 2])
        for s in (8, 16)
    ]
    weights = {"stem": RNG.normal(0, 0.1, (8, 3, 8, 8)).astype(np.float32)}
    outputs = []
    for kind, width, spread, bias in (("score", 1, 0.8, -4.4), ("edges", 4, 0.5, 5.0), ("points", 10, 1.0, 0.0)):
        weights[kind] = RNG.normal(0, spread, (2 * width, 8, 1, 1)).astype(np.float32)
        weights[f"{kind}_bias"] = np.full(2 * width, bias, np.float32)
        weights[f"{kind}_rows"] = np.array([-1, width])
        for s in (8, 16, 32):
            name = f"{kind}{s}"
            nodes += [
                helper.make_node("Conv", [f"at{s}", kind, f"{kind}_bias"], [f"{name}_map"]),
                helper.make_node("Transpose", [f"{name}_map"], [f"{name}_last"], perm=[0, 2, 3, 1]),
                helper.make_node(
                    "Reshape", [f"{name}_last", f"{kind}_rows"], [f"{name}_raw" if kind == "score" else name]
                ),
            ]
            if kind == "score":
                nodes.append(helper.make_node("Sigmoid", [f"{name}_raw"], [name]))
            outputs.append((name, [None, width]))
    return save(nodes, weights, [1, 3, "height", "width"], outputs)


def recogniser():
    nodes = [
        helper.make_node("AveragePool", ["image"], ["blocks"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Flatten", ["blocks"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["vector"]),
    ]
    weights = {"weight": RNG.normal(size=(147, 16)).astype(np.float32)}
    return save(nodes, weights, ["batch", 3, 112, 112], [("vector", ["batch", 16])])


def photo():
    coarse = RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (120, 88), interpolation=cv2.INTER_CUBIC)
    cv2.line(image, (30, 20), (90, 70), (250, 240, 10), 3)
    return image


def main():
    image = photo()
    record = {"photo": image[..., ::-1], "det_10g": detector(), "w600k_r50": recogniser()}
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "models" / "buffalo_l"
        folder.mkdir(parents=True)
        for name in ("det_10g", "w600k_r50"):
            (folder / f"{name}.onnx").write_bytes(record[name].tobytes())
        app = FaceAnalysis("buffalo_l", root, allowed_modules=["detection", "recognition"])
        app.prepare(ctx_id=-1, det_size=(640, 640))
        for name, size in SIZES.items():
            app.det_model.input_size = (size, size)
            faces = app.get(image)
            print(name, size, len(faces))
            record[f"{name}.boxes"] = np.stack([face.bbox for face in faces])
            record[f"{name}.scores"] = np.stack([face.det_score for face in faces])
            record[f"{name}.keypoints"] = np.stack([face.kps for face in faces])
            record[f"{name}.embeds"] = np.stack([face.normed_embedding for face in faces])
        session = onnxruntime.InferenceSession(folder / "det_10g.onnx")
        height = int(128 * 88 / 120)
        canvas = np.zeros((128, 128, 3), np.uint8)
        canvas[:height] = cv2.resize(image, (128, height))
        blob = cv2.dnn.blobFromImage(canvas, 1 / 128, (128, 128), (127.5,) * 3, swapRB=True)
        record["tiny.canvas"] = canvas[..., ::-1]
        record.update((f"tiny.output{i}", output) for i, output in enumerate(session.run(None, {"image": blob})))
    template = face_align.arcface_dst
    record["crop.keypoints"] = np.stack(
        [
            template * 0.6 + (30, 20),
            template @ [[0.9, 0.5], [-0.5, 0.9]] + (40, -30),
            template * (-1, 1) * 0.4 + (90, 30) + RNG.normal(0, 3, (5, 2)),  # mirrored
        ]
    ).astype(np.float32)
    for size, row in ((112, 0), (224, 1), (128, 2)):
        crop = face_align.norm_crop(image, record["crop.keypoints"][row], size)
        record[f"crop.{size}.{row}"] = crop[..., ::-1]
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **record)


if __name__ == "__main__":
    main()
