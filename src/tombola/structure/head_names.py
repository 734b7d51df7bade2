"""The names, attributes and orders that networks use for attention heads, as data."""

SEPARATE = (
    ("query", "key", "value"),
    ("q_lin", "k_lin", "v_lin"),
    ("q_proj", "k_proj", "v_proj"),
    ("query_proj", "key_proj", "value_proj"),
    ("q", "k", "v"),
    ("to_q", "to_k", "to_v"),
    ("wq", "wk", "wv"),
    ("w_q", "w_k", "w_v"),
    ("W_q", "W_k", "W_v"),
    ("linear_q", "linear_k", "linear_v"),
    ("queries", "keys", "values"),
    ("q_attn", "c_attn"),
    ("to_q", "to_kv"),
    ("q", "kv"),
    ("q_proj", "kv_proj"),
)
"""Names of the layers that make queries, keys and values, where they are several."""

FUSED = ("qkv", "c_attn", "query_key_value", "Wqkv", "to_qkv", "qkv_proj", "in_proj", "W_pack", "att_proj")
"""Names of the layer that makes all three."""

MIXERS = (
    *("out", "out_lin", "out_proj", "o_proj", "proj", "c_proj", "o", "dense", "output.dense", "to_out", "Wo", "wo"),
    *("w_o", "W_o", "linear_out", "proj_out", "output_proj", "fc_out", "out_project", "fc", "output"),
)
"""Names of the layer that mixes the heads."""

UNIT_MAJOR = ("query_key_value", "W_pack")
"""Fused layers that usually hold each head's query, key and value side by side, and not all queries first."""

SIZES = ("head_size", "attention_head_size", "head_dim", "key_value_proj_dim", "dim_head", "d_head", "d_k")
HEADS = (
    *("heads", "num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "nheads", "num_head", "n_attn_heads"),
    *("h", "H"),
)
GROUPS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "kv_heads", "num_kv", "n_kv_head", "num_query_groups")
QUERIES = ("num_key_value_groups", "n_rep", "num_queries_per_kv")
"""Attributes that say how many queries share a key."""
TOTALS = (
    *("all_head_size", "attn_dim", "inner_dim", "split_size", "val_attn_dim", "key_attn_dim", "all_head_dim"),
    *("attention_dim", "d_attn", "inner_size", "proj_size", "total_head_dim"),
)
WIDTHS = (
    "embed_dim",
    "hidden_size",
    "n_embd",
    "dim",
    "d_model",
    "emb_dim",
    "embed_size",
    "width",
    "emb_size",
    "hidden_dim",
)
"""Attributes that may be the width of all heads or that of the model, which are the same number at first."""

FIELDS = ("num_attention_heads", "num_heads", "n_head", "n_heads")
SIDES = ("encoder_attention_heads", "decoder_attention_heads")
