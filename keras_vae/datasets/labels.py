"""Labels as files have them, made one class for each row."""

import numpy as np


def as_labels(y: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Returns labels as integers, bools, text or floats.

    One-hot rows become class numbers, floats that are whole numbers integers, bytes text.

    Args:
        y: array `[rows]`, `[rows, 1]` or one-hot `[rows, classes]` of any dtype.

    Returns:
        (labels, problem): labels `[rows]` and an empty text; or None and the reason why y
        is not one label for each row.
    """
    if y.dtype == object:
        kinds = {type(value) for value in y.ravel()}
        if not (kinds <= {bool, int, float} or kinds in ({str}, {bytes})):
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            return None, f"objects of the types {names}"
        y = np.array(y.tolist())
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    if y.dtype.kind not in "buifU":
        return None, f"labels of dtype {y.dtype}"
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and y.dtype.kind != "U":
        is_one_hot = np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()
        y = y.argmax(axis=1) if is_one_hot else y
    if y.ndim != 1:
        return None, f"labels of shape {y.shape}, neither [rows] nor one-hot"
    if y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.round(y)).all():
        y = y.astype(np.int64)
    return y, ""
