"""The special tokens and the fields of an annotation text, shared by tokenizer, trainer and graph."""
PAD, UNKNOWN, START = "[PAD]", "[UNK]", "[CLS]"
SIGNATURE, SUMMARY, CODE = "Signature: ", "| Summary: ", "| Code: "
SPECIAL = [PAD, UNKNOWN, START, SIGNATURE, SUMMARY, CODE]
# Fields: 0 plain text (a query); 1 signature up to its first "(", 4 from there on; 2 summary;
# 5 code up to its first "(" (at most HEAD tokens, the marker included), 3 the rest of the code.
FIELDS = 6
HEAD = 24
FIELD_EPSILON = 1e-3
