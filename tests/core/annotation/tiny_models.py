"""Tiny random models of each kind that a stage opens, as folders on disk."""

from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertForTokenClassification,
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessor,
    OwlViTProcessor,
    SamConfig,
    SamImageProcessor,
    SamModel,
    SamProcessor,
)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "box", "dog", "and", "blue", "in", "the", "dust"]
TAGS = ["NOUN", "DET", "VERB"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def make_models(folder: Path) -> Path:
    """`caption` (BLIP), `words` (BERT), `boxes` (OWL-ViT) and `masks` (SAM) in a folder."""
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    text = {**SMALL, "vocab_size": len(WORDS), "max_position_embeddings": 128, "bos_token_id": 2, "eos_token_id": 3}
    text |= {"sep_token_id": 3, "pad_token_id": 0, "projection_dim": 16}

    tagger = BertConfig(**text, id2label=dict(enumerate(TAGS)), label2id={tag: n for n, tag in enumerate(TAGS)})
    BertForTokenClassification(tagger).save_pretrained(folder / "words")
    tokenizer.save_pretrained(folder / "words")

    seen = {**SMALL, "image_size": 32, "patch_size": 16, "projection_dim": 16}
    writer = BlipConfig(text_config={**text, "encoder_hidden_size": 16}, vision_config=seen, projection_dim=16)
    BlipForConditionalGeneration(writer).save_pretrained(folder / "caption")
    square = {"height": 32, "width": 32}
    BlipProcessor(BlipImageProcessor(size=square), tokenizer).save_pretrained(folder / "caption")

    finder = OwlViTConfig(text_config=text, vision_config={**seen, "patch_size": 8}, projection_dim=16)
    OwlViTForObjectDetection(finder).save_pretrained(folder / "boxes")
    processor = OwlViTProcessor(OwlViTImageProcessor(size=square, crop_size=square), tokenizer)
    processor.save_pretrained(folder / "boxes")

    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 64, "mlp_dim": 16}
    vision |= {"patch_size": 16, "output_channels": 8, "num_pos_feats": 4, "window_size": 2, "global_attn_indexes": [0]}
    outliner = SamConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 8, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 8,
            "mlp_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 8,
        },
    )
    SamModel(outliner).save_pretrained(folder / "masks")
    SamProcessor(
        SamImageProcessor(
            size={"longest_edge": 64},
            pad_size={"height": 64, "width": 64},
            mask_size={"longest_edge": 16},
            mask_pad_size={"height": 16, "width": 16},
        )
    ).save_pretrained(folder / "masks")
    return folder
