"""CIDEr-D and CIDEr: agreement with the references in rare n-grams (Vedantam et al. 2015).

Which is which: what coco-caption reports as **CIDEr**, and every paper's COCO table with it, is the
paper's **CIDEr-D** (section 6: counts clipped, a Gaussian penalty with sigma 6 on the difference in
length), without stemming. `CiderD.score` is that. The paper's plain CIDEr (equations 1 to 3) has
neither clipping nor penalty; `CiderD.plain_score` is that, also without stemming. As in
coco-caption the length of a caption is its number of *bigrams*, and both are scaled by 10.

References are prepared once; scoring then costs only the candidates. It deliberately does not know
tokenization: captions come as tokens separated by white space, or as ids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laconic.errors import ConfigError, DataError
from laconic.metrics.ngrams import ORDERS, Caption, Counts, Ints, NgramTable, image_of_each

Floats = NDArray[np.float64]
SIGMA = 6.0
SCALE = 10.0


@dataclass(frozen=True)
class DocumentFrequency:
    """In how many documents (images) each n-gram stands.

    `counts` maps an n-gram, its words separated by one space, to the number of images with a
    reference that contains it; n-grams that are missing count as seen once. `documents` is the
    number of images.
    """

    counts: Mapping[str, float]
    documents: int

    def __post_init__(self) -> None:
        most = max(self.counts.values(), default=0)
        if self.documents < 1 or most > self.documents:
            raise ConfigError(
                f"document frequency: an n-gram in {most:g} of {self.documents} documents "
                "is not possible; give the number of images that the counts were taken from"
            )


class CiderD:
    """CIDEr-D against references that are prepared once.

    `references[i]` are the tokenized references of image i (at least one). Document frequencies
    come from these references, as in coco-caption, unless `document_frequency` is given (a reward
    during training uses those of the whole training set). `table` holds the n-grams of both.
    """

    def __init__(
        self,
        references: Sequence[Sequence[Caption]],
        document_frequency: DocumentFrequency | None = None,
    ) -> None:
        per_image = np.array([len(captions) for captions in references], dtype=np.int64)
        if not len(per_image) or not per_image.all():
            missing = "no images" if not len(per_image) else f"none for image {per_image.argmin()}"
            raise DataError(f"CIDEr needs at least one reference caption per image, got {missing}")
        captions: list[Caption] = [caption for group in references for caption in group]
        self._images = len(references)
        known = document_frequency.counts if document_frequency else ()
        self.table, counts = NgramTable.of([*captions, *known])
        counts = counts.first(len(captions))
        image = np.repeat(np.arange(self._images), per_image)[counts.caption]
        # Sorted by (image, n-gram), so that one run holds all that a candidate's n-gram can meet.
        key = image * (self.table.size + 1) + counts.gram
        ranking = np.argsort(key, kind="stable")
        self._runs, starts = np.unique(key[ranking], return_index=True)
        self._run_starts = np.append(starts, len(key))
        self._idf, self._idf_unknown = self._inverse_frequency(document_frequency)

        weight = counts.count * self._idf[counts.gram]
        norm = _norms(counts, weight, len(captions))
        # Divided by all that depends on the reference only: its norm and the number of references.
        scaled = _divide(weight, norm[counts.caption, counts.order]) / per_image[image]
        self._weight = weight[ranking]
        self._scaled = scaled[ranking]
        self._length = _bigrams(counts.words)[counts.caption][ranking]

    def score(self, candidates: Sequence[Caption], images: Sequence[int] | Ints | None = None) -> Floats:
        """CIDEr-D of each candidate, 0 to 10 (the scale of coco-caption, which reports their mean).

        Candidate i is compared with the references of image `images[i]`, by default of image i; an
        image may come several times (sampled captions) or not at all.
        """
        return self.score_counts(self.table.count(candidates), images)

    def score_counts(self, counts: Counts, images: Sequence[int] | Ints | None = None) -> Floats:
        """`score` of candidates that `table` has counted already."""
        return self._similarity(counts, images, clipped=True)

    def plain_score(self, candidates: Sequence[Caption], images: Sequence[int] | Ints | None = None) -> Floats:
        """The paper's CIDEr of each candidate, without clipping and length penalty, 0 to 10."""
        return self._similarity(self.table.count(candidates), images, clipped=False)

    def _inverse_frequency(self, given: DocumentFrequency | None) -> tuple[Floats, float]:
        """log(documents / document frequency) of each n-gram in the table, and of any other."""
        size = self.table.size
        if given is None:
            documents = self._images
            frequency = np.bincount(self._runs % (size + 1), minlength=size).astype(np.float64)
        else:
            documents = given.documents
            frequency = np.zeros(size)
            ids = self.table.ids(list(given.counts))
            values = np.fromiter(given.counts.values(), np.float64, len(ids))
            frequency[ids[ids >= 0]] = values[ids >= 0]
        log_documents = float(np.log(documents))
        return log_documents - np.log(np.maximum(frequency, 1.0)), log_documents

    def _similarity(self, counts: Counts, images: Sequence[int] | Ints | None, *, clipped: bool) -> Floats:
        candidates = len(counts.words)
        image = image_of_each(candidates, images, self._images)
        known = counts.gram < self.table.size
        idf = np.full(len(counts.gram), self._idf_unknown)
        idf[known] = self._idf[counts.gram[known]]
        weight = counts.count * idf
        scaled = _divide(1.0, _norms(counts, weight, candidates))[counts.caption, counts.order]
        entry, reference = self._join(image[counts.caption], counts.gram, known)
        if clipped:
            apart = _bigrams(counts.words)[counts.caption[entry]] - self._length[reference]
            product = np.minimum(weight[entry], self._weight[reference])
            product *= np.exp(apart * apart * (-0.5 / SIGMA**2))
        else:
            product = weight[entry]
        product *= self._scaled[reference] * scaled[entry]
        totals = np.bincount(counts.caption[entry], weights=product, minlength=candidates)
        scores: Floats = np.multiply(totals, SCALE / ORDERS, dtype=np.float64)
        return scores

    def _join(self, image: Ints, gram: Ints, known: NDArray[np.bool_]) -> tuple[Ints, Ints]:
        """Pairs (candidate entry, reference entry) with the same image and n-gram."""
        entries = np.flatnonzero(known)
        key = image[entries] * (self.table.size + 1) + gram[entries]
        if not len(self._runs):
            return entries[:0], entries[:0]
        run = np.searchsorted(self._runs, key)
        run[run == len(self._runs)] = 0
        found = self._runs[run] == key
        run, entries = run[found], entries[found]
        begin = self._run_starts[run]
        length = self._run_starts[run + 1] - begin
        offset = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        return np.repeat(entries, length), np.repeat(begin, length) + offset


def _bigrams(words: Ints) -> Ints:
    return np.maximum(words - 1, 0)


def _norms(counts: Counts, weight: Floats, captions: int) -> Floats:
    """Euclidean norm of each caption's weights per order, (captions, 4)."""
    slot = counts.caption * ORDERS + counts.order
    squares = np.bincount(slot, weights=weight * weight, minlength=captions * ORDERS)
    norms: Floats = np.sqrt(squares.reshape(captions, ORDERS), dtype=np.float64)
    return norms


def _divide(numerator: Floats | float, denominator: Floats) -> Floats:
    """Quotient that is 0 where the denominator is: a vector of zeros resembles nothing."""
    result = np.zeros(denominator.shape)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result
