"""Quantises a trained table and writes the model folder: ONNX graph, tokenizer and the usual side files."""
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fields import CODE, FIELD_EPSILON, FIELDS, HEAD, SIGNATURE, SUMMARY

WEIGHT_UNIT = 1024.0  # keeps the fp16 weights in their normal range


def quantise(table, log_weight):
    """int8 rows; each row's scale is folded into the fp16 weights, which are per token and field."""
    peak = np.abs(table).max(1, keepdims=True)
    peak[peak == 0] = 1
    rows = np.clip(np.rint(table * (127 / peak)), -127, 127).astype(np.int8)
    weight = np.exp(log_weight.astype(np.float64).reshape(-1, FIELDS)) * (peak / 127)
    return rows, (weight * WEIGHT_UNIT).astype(np.float16)


def build_graph(rows, weight, gain, ids):
    """ids: token ids of the markers: signature, summary, code, and the opening parenthesis."""
    dimensions = rows.shape[1]
    nodes, constants = [], {}

    def constant(name, value, dtype):
        constants[name] = numpy_helper.from_array(np.asarray(value, dtype), name)
        return name

    def op(kind, inputs, name, **attributes):
        nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    constant("table", rows, np.int8)
    constant("weight", weight.reshape(-1), np.float16)
    constant("axis_1", 1, np.int64)
    constant("axes_1", [1], np.int64)
    constant("axes_2", [2], np.int64)
    constant("axes_last", [-1], np.int64)
    constant("zero", 0, np.int32)
    constant("head", HEAD, np.int32)
    constant("minus_one", -1, np.int64)
    constant("fields", FIELDS, np.int64)
    constant("tiny", 1e-12, np.float32)
    constant("gain", gain.reshape(1, FIELDS), np.float32)
    constant("field_numbers", np.arange(FIELDS).reshape(1, FIELDS, 1), np.int64)
    constant("field_epsilon", FIELD_EPSILON * WEIGHT_UNIT, np.float32)
    for number in range(FIELDS):
        constant(f"field_{number}", number, np.int64)

    def seen(name, hit):
        """True from the first hit onwards, along the sequence."""
        op("Cast", [hit], name + "_int", to=TensorProto.INT32)
        op("CumSum", [name + "_int", "axis_1"], name + "_count")
        return op("Greater", [name + "_count", "zero"], name + "_seen")

    # The field of each token, see fields.py. Later fields take precedence over earlier ones.
    for name in ("signature", "summary", "code", "paren"):
        constant(name + "_id", ids[name], np.int64)
        op("Equal", ["input_ids", name + "_id"], name + "_hit")
    seen("code", "code_hit")
    op("Where", [seen("signature", "signature_hit"), "field_1", "field_0"], "field_a")
    op("Where", [seen("summary", "summary_hit"), "field_2", "field_a"], "field_b")
    op("Where", ["code_seen", "field_3", "field_b"], "field_c")
    # From the first "(" of the signature on: its parameters.
    op("Equal", ["field_c", "field_1"], "in_signature")
    op("And", ["in_signature", "paren_hit"], "signature_paren")
    op("And", ["in_signature", seen("parameters", "signature_paren")], "in_parameters")
    op("Where", ["in_parameters", "field_4", "field_c"], "field_d")
    # Up to the first "(" of the code, within its first tokens: its head.
    op("And", ["code_seen", "paren_hit"], "code_paren")
    op("Not", [seen("body", "code_paren")], "before_body")
    op("Cast", ["code_seen"], "code_seen_int", to=TensorProto.INT32)
    op("CumSum", ["code_seen_int", "axis_1"], "code_place")
    op("LessOrEqual", ["code_place", "head"], "near_start")
    op("And", ["code_seen", "before_body"], "before_body_in_code")
    op("And", ["before_body_in_code", "near_start"], "in_head")
    op("Where", ["in_head", "field_5", "field_d"], "field")

    # A token that occurs n times in a field counts sqrt(n) times.
    op("Cast", ["attention_mask"], "mask", to=TensorProto.BOOL)
    op("Mul", ["input_ids", "fields"], "feature_base")
    op("Add", ["feature_base", "field"], "feature")
    op("Where", ["mask", "feature", "minus_one"], "feature_or_pad")
    op("Unsqueeze", ["feature_or_pad", "axes_2"], "feature_rows")
    op("Unsqueeze", ["feature_or_pad", "axes_1"], "feature_columns")
    op("Equal", ["feature_rows", "feature_columns"], "same")
    op("Cast", ["same"], "same_float", to=TensorProto.FLOAT)
    op("ReduceSum", ["same_float", "axes_2"], "occurrences", keepdims=0)
    op("Sqrt", ["occurrences"], "root")

    op("Gather", ["weight", "feature"], "token_weight_half")
    op("Cast", ["token_weight_half"], "token_weight", to=TensorProto.FLOAT)
    op("Cast", ["mask"], "mask_float", to=TensorProto.FLOAT)
    op("Mul", ["token_weight", "mask_float"], "masked_weight")
    op("Div", ["masked_weight", "root"], "position_weight")
    # One vector per field, each divided by the square root of its length, then their weighted sum.
    op("Unsqueeze", ["position_weight", "axes_1"], "weight_row")
    op("Unsqueeze", ["field", "axes_1"], "field_row")
    op("Equal", ["field_row", "field_numbers"], "field_match")
    op("Cast", ["field_match"], "field_match_float", to=TensorProto.FLOAT)
    op("Mul", ["field_match_float", "weight_row"], "field_weights")
    op("Gather", ["table", "input_ids"], "token_int8")
    op("Cast", ["token_int8"], "token_float", to=TensorProto.FLOAT)
    op("MatMul", ["field_weights", "token_float"], "by_field")
    op("Mul", ["by_field", "by_field"], "by_field_squares")
    op("ReduceSum", ["by_field_squares", "axes_2"], "by_field_square_sum", keepdims=0)
    op("Sqrt", ["by_field_square_sum"], "by_field_length")
    op("Add", ["by_field_length", "field_epsilon"], "by_field_length_safe")
    op("Sqrt", ["by_field_length_safe"], "by_field_root")
    op("Div", ["gain", "by_field_root"], "field_scale")
    op("Unsqueeze", ["field_scale", "axes_1"], "field_scale_row")
    op("MatMul", ["field_scale_row", "by_field"], "joined_row")
    op("Squeeze", ["joined_row", "axes_1"], "pooled")
    op("Mul", ["pooled", "pooled"], "squares")
    op("ReduceSum", ["squares", "axes_last"], "square_sum", keepdims=1)
    op("Add", ["square_sum", "tiny"], "square_sum_safe")
    op("Sqrt", ["square_sum_safe"], "length")
    op("Div", ["pooled", "length"], "sentence_embedding")

    tokens = lambda name: helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
    graph = helper.make_graph(
        nodes, "static_code_embedding", [tokens("input_ids"), tokens("attention_mask")],
        [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", dimensions])],
        list(constants.values()),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="embedcore")
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model


MAX_TOKENS = 512


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_model(folder, tokenizer, table, log_weight, log_gain):
    folder = Path(folder)
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    vocab = tokenizer.get_vocab()
    rows, weight = quantise(table, log_weight)
    ids = {"signature": vocab[SIGNATURE], "summary": vocab[SUMMARY], "code": vocab[CODE], "paren": vocab["("]}
    onnx.save(build_graph(rows, weight, np.exp(log_gain), ids), str(folder / "onnx/model.onnx"))
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    write_json(folder / "config.json", {
        "model_type": "static_code_embedding", "hidden_size": int(rows.shape[1]), "vocab_size": len(rows),
        "max_position_embeddings": MAX_TOKENS, "pad_token_id": vocab["[PAD]"], "matryoshka_dimensions": [256, 128, 64],
    })
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": MAX_TOKENS, "do_lower_case": True,
        "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]",
    })
    write_json(folder / "special_tokens_map.json", {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS, "do_lower_case": False})
    write_json(folder / "modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ])
    write_json(folder / "1_Pooling/config.json", {
        "word_embedding_dimension": int(rows.shape[1]), "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False,
    })
    # The addon is built with these sums and refuses files that differ.
    read = sorted(f for f in folder.rglob("*.*") if f.suffix in (".onnx", ".json") and f.name != "special_tokens_map.json")
    sums = [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(folder).as_posix()}\n" for f in read]
    (folder / "SHA256SUMS").write_text("".join(sums))
