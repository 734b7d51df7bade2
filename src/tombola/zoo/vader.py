"""Sentences of four kinds, rated by twenty readers (Hutto & Gilbert, VADER, ICWSM 2014)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tombola.files import content_of
from tombola.zoo.data_files import Remote, damaged, locate, unpacked
from tombola.zoo.normalisation import Data
from tombola.zoo.word_pieces import word_pieces

PACKAGE = Remote(
    "vaderSentiment-3.3.2.tar.gz",
    "https://files.pythonhosted.org/packages/source/v/vaderSentiment/vaderSentiment-3.3.2.tar.gz",
    "sha256:5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
INSIDE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
SENTENCES = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
FILES = {
    "films": SENTENCES,
    "news": "hutto_ICWSM_2014/nytEditorialSnippets_GroundTruth.txt",
    "products": "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt",
    "tweets": "hutto_ICWSM_2014/tweets_GroundTruth.txt",
}
HINT = (
    "pip download --no-deps --no-binary :all: -d DIR vaderSentiment==3.3.2 fetches vaderSentiment-3.3.2.tar.gz; "
    "give that folder as --data-dir"
)
LENGTH = 40
TEST_EVERY = 5


def vader(
    kind: str = "films", folder: Path | None = None, *, tokenizer: Path | None = None, length: int | None = None
) -> Data:
    """Sentences as word pieces, with the class 1 where the mean rating is positive. Needs the extra `text`.

    Every fifth sentence is in the test split.

    Args:
        kind: 10,605 sentences of film reviews (`films`), 5,190 of editorials (`news`), 3,708 of reviews of products
            (`products`) or 4,200 tweets (`tweets`).
        folder: of vaderSentiment-3.3.2.tar.gz; if None, the file is downloaded.
        tokenizer: a folder with a tokenizer's files; that of MiniLM if None.
        length: word pieces of each sentence, cut or padded; 40 if None.

    Raises:
        TombolaError: if the file is missing or damaged, or cannot be downloaded.
    """
    (path,) = locate("vader", [PACKAGE], folder, (), HINT)
    texts, ratings = _sentences(path, FILES[kind])
    pieces = word_pieces(texts, tokenizer=tokenizer, length=length or LENGTH, told=length is not None)
    labels = (ratings > 0).long()
    test = torch.arange(len(labels)) % TEST_EVERY == 0
    return {"train": (pieces[~test], labels[~test]), "test": (pieces[test], labels[test])}


def _sentences(path: Path, file: str) -> tuple[list[str], Tensor]:
    try:
        (inside,) = unpacked(content_of(path), [INSIDE])
        (sentences,) = unpacked(inside, [file])
        lines = sentences.decode("utf-8", "replace").splitlines()
        rows = [line.split("\t", 2) for line in lines if line.strip()]
        return [text for _, _, text in rows], torch.tensor([float(rating) for _, rating, _ in rows])
    except (OSError, ValueError) as error:
        raise damaged(path, str(error)) from error
