"""Builds tokenizer.json: identifiers are split into words, words are looked up greedily (WordPiece)."""
import argparse
import collections
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from common import data_file, read_jsonl_zst
from fields import CODE, PAD, SIGNATURE, SPECIAL, START, SUMMARY, UNKNOWN

# Zero-width boundaries inside identifiers: fooBar, HTTPServer, utf8, 8bit. Snake case splits at "_" by itself.
BOUNDARY = (
    r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])"
)
# "(" stays alone: it ends the name in a signature.
WORD = r"\p{L}+|\p{N}+|\(|[^\s\p{L}\p{N}_(]+"


def splitter():
    lower = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=True)
    return normalizers.Sequence([normalizers.Replace(Regex(BOUNDARY), " "), lower])


def word_tokenizer(model):
    tok = Tokenizer(model)
    tok.normalizer = splitter()
    tok.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True)
    return tok


TEXT_CHARS = 500  # characters of the code that are counted and trained on


def count_words(rows):
    """Document frequency of every word over the docs and the corpus texts."""
    tok = word_tokenizer(models.WordLevel({UNKNOWN: 0}, unk_token=UNKNOWN))
    counts = collections.Counter()
    for row in rows:
        words = set()
        for text in (row["doc"], row["signature"] + "\n" + row["code"][:TEXT_CHARS]):
            words.update(w for w, _ in tok.pre_tokenizer.pre_tokenize_str(tok.normalizer.normalize_str(text)))
        counts.update(words)
    return counts


# Parts of words. The library that learns them breaks ties at random, so they were learned once and are kept:
#     python training/build_tokenizer.py --data DIR
PIECES = Path(__file__).with_name("pieces.txt")


def learn_pieces(counts, size=6000):
    """The pieces that rebuild all words of the training texts best."""
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=[UNKNOWN], show_progress=False, continuing_subword_prefix="##"
    )
    tok = word_tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tok.normalizer = None
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = sorted(w for w in counts if w.isascii() and w.isalpha())
    tok.train_from_iterator((" ".join(words[i:i + 1000]) for i in range(0, len(words), 1000)), trainer)
    return [piece for piece, _ in sorted(tok.get_vocab().items(), key=lambda item: item[1]) if piece != UNKNOWN]


def build(rows, base_vocab, min_count=3, operators=250, limit=40000):
    """base_vocab: the vocabulary of the model the table starts from; its whole words keep unseen words meaningful."""
    counts = count_words(rows)
    ascii_word = lambda w: w.isascii() and w.isalpha()
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))  # ties by name, to be the same every time
    words = [w for w, c in ranked if ascii_word(w) and c >= min_count and len(w) <= 24]
    words += [w for w, c in ranked if w.isdigit() and c >= 20]
    words += [w for w, c in ranked if not w.isalnum() and c >= 5 and w.isascii()][:operators]
    words += [w for w in base_vocab if ascii_word(w) and w not in counts]
    learned = PIECES.read_text().split()
    printable = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    every = SPECIAL + printable + ["##" + c for c in printable] + words[:limit] + learned
    vocab = {}
    for token in every:
        vocab.setdefault(token, len(vocab))
    vocab = {t: i for i, (t, _) in enumerate(list(vocab.items())[:limit])}
    tok = word_tokenizer(models.WordPiece(vocab, unk_token=UNKNOWN, max_input_chars_per_word=64))
    tok.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in (PAD, UNKNOWN, START)])
    tok.add_tokens([AddedToken(t, normalized=False, special=False) for t in (SIGNATURE, SUMMARY, CODE)])
    tok.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", pair=f"{START} $A $B", special_tokens=[(START, vocab[START])]
    )
    return tok, counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    counted = count_words(read_jsonl_zst(data_file(parser.parse_args().data, "train")))
    PIECES.write_text("\n".join(learn_pieces(counted)) + "\n")
