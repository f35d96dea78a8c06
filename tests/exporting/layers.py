"""A model made of the usual layers of Keras, for the list of operators of exports."""

import functools
import inspect

import keras

import keras_vae as kv

ACTIVATIONS = (
    "celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu",
    "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu",
    "relu6", "selu", "sigmoid", "silu", "soft_shrink", "softmax", "softplus", "softsign",
    "sparse_plus", "sparse_sigmoid", "sparsemax", "squareplus", "tanh", "tanh_shrink",
)  # fmt: skip
# Functions of `keras.ops` of one tensor, and of two.
UNARY = (
    "abs", "all", "any", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh",
    "argmax", "argmin", "argsort", "ceil", "cos", "cosh", "count_nonzero", "cumprod",
    "cumsum", "diff", "erf", "exp", "exp2", "expm1", "flip", "floor", "isfinite", "isinf",
    "isnan", "log", "log10", "log1p", "log2", "logical_not", "logsumexp", "max", "mean",
    "median", "min", "nan_to_num", "negative", "norm", "normalize", "ones_like", "prod",
    "ravel", "reciprocal", "round", "rsqrt", "sign", "sin", "sinh", "sort", "sqrt",
    "square", "std", "sum", "tan", "trunc", "var", "zeros_like",
)  # fmt: skip
BINARY = (
    "add", "arctan2", "divide", "divide_no_nan", "equal", "floor_divide", "greater",
    "greater_equal", "less", "less_equal", "logaddexp", "logical_and", "logical_or",
    "logical_xor", "maximum", "minimum", "mod", "multiply", "not_equal", "power",
    "squared_difference" if hasattr(keras.ops, "squared_difference") else "subtract",
)  # fmt: skip
# What an export refuses, because the format has no operators for it.
NOT_IN = {
    "litert": {
        "LSTM", "GRU", "SimpleRNN", "Bidirectional", "ConvLSTM2D", "roll",
        "Resizing bicubic", "MaxPooling3D", "AveragePooling3D",
        "ops.arccos", "ops.arccosh", "ops.arcsin",
        "ops.arcsinh", "ops.arctan", "ops.arctanh", "ops.argmax", "ops.argmin", "ops.cosh",
        "ops.cumprod", "ops.erf", "ops.median", "ops.sinh", "ops.tan",
    },
    "onnx": {
        "activation gelu", "Discretization", "Conv2D groups", "ops.argmax", "ops.argmin",
        "ops.log1p", "ops.logaddexp",
    },
}  # fmt: skip
# The shapes to which a branch reshapes the event (8, 8, 2), and its layers.
SHAPES = {
    "vectors": (128,),
    "sequences": (16, 8),
    "images": (8, 8, 2),
    "volumes": (4, 4, 4, 2),
}


def layers():
    """Returns {name: (branch, function of a tensor)}."""
    k = keras.layers
    norm = k.Normalization(mean=0.5, variance=2.0)
    vectors = {
        **{f"activation {name}": k.Activation(name) for name in ACTIVATIONS},
        "PReLU": k.PReLU(alpha_initializer="ones"),
        "LeakyReLU": k.LeakyReLU(0.1),
        "ReLU": k.ReLU(6.0, 0.1, 0.2),
        "ELU": k.ELU(0.5),
        "Softmax": k.Softmax(),
        "BatchNormalization": k.BatchNormalization(),
        "LayerNormalization": k.LayerNormalization(),
        "RMSNormalization": k.RMSNormalization(),
        "UnitNormalization": k.UnitNormalization(),
        "Normalization": norm,
        "Rescaling": k.Rescaling(2.0, -1.0),
        "Discretization": k.Discretization([0.0, 0.5, 1.0], output_mode="one_hot"),
        "Dropout": k.Dropout(0.5),
        "GaussianNoise": k.GaussianNoise(0.5),
        "RepeatVector": k.RepeatVector(2),
        "SpectralNormalization": k.SpectralNormalization(k.Dense(3)),
        "Dense": k.Dense(3),
        "merges": lambda x: k.Concatenate()([
            layer()([x, 2.0 * x])
            for layer in (k.Add, k.Subtract, k.Multiply, k.Average, k.Maximum, k.Minimum)
        ]),
        "Dot": lambda x: k.Dot(1)([x, x]),
        "Embedding": lambda x: k.Embedding(20, 3)(keras.ops.cast(x, "int32")),
    }  # fmt: skip
    sequences = {
        "Conv1D": k.Conv1D(3, 3, 2, "same"),
        "Conv1D causal": k.Conv1D(3, 3, padding="causal", dilation_rate=2),
        "Conv1DTranspose": k.Conv1DTranspose(3, 3, 2, "same"),
        "SeparableConv1D": k.SeparableConv1D(3, 3),
        "DepthwiseConv1D": k.DepthwiseConv1D(3),
        "MaxPooling1D": k.MaxPooling1D(2),
        "AveragePooling1D": k.AveragePooling1D(2),
        "GlobalMaxPooling1D": k.GlobalMaxPooling1D(),
        "GlobalAveragePooling1D": k.GlobalAveragePooling1D(),
        "UpSampling1D": k.UpSampling1D(),
        "ZeroPadding1D": k.ZeroPadding1D(),
        "Cropping1D": k.Cropping1D(),
        "LSTM": k.LSTM(3),
        "GRU": k.GRU(3, return_sequences=True),
        "SimpleRNN": k.SimpleRNN(3),
        "Bidirectional": k.Bidirectional(k.GRU(3)),
        "LSTM unrolled": k.LSTM(3, unroll=True),
        "TimeDistributed": k.TimeDistributed(k.Dense(3)),
        "EinsumDense": k.EinsumDense("abc,cd->abd", (16, 3)),
        "Permute": k.Permute((2, 1)),
        "MultiHeadAttention": lambda x: k.MultiHeadAttention(2, 3)(x, x),
        "causal MultiHeadAttention": lambda x: k.MultiHeadAttention(2, 3)(
            x, x, use_causal_mask=True
        ),
        "GroupQueryAttention": lambda x: k.GroupQueryAttention(3, 4, 2)(x, x),
        "Attention": lambda x: k.Attention()([x, x]),
        "AdditiveAttention": lambda x: k.AdditiveAttention()([x, x]),
        "where": lambda x: keras.ops.where(x > 0.5, x, 0.0),
        "clip": lambda x: keras.ops.clip(x, 0.1, 0.9),
        "one_hot": lambda x: keras.ops.one_hot(keras.ops.cast(x, "int32"), 3),
        "take": lambda x: keras.ops.take(x, [1, 0], axis=1),
        "take_along_axis": lambda x: keras.ops.take_along_axis(
            x, keras.ops.argsort(x, axis=1), axis=1
        ),
        "top_k": lambda x: keras.ops.top_k(x, 2)[0],
        "tril": lambda x: keras.ops.tril(x) + keras.ops.triu(x),
        "einsum": lambda x: keras.ops.einsum("bij,bkj->bik", x, x),
        "matmul": lambda x: keras.ops.matmul(x, keras.ops.swapaxes(x, 1, 2)),
        "roll": lambda x: keras.ops.roll(x, 1, axis=1),
        "repeat": lambda x: keras.ops.repeat(x, 2, axis=1),
        "stack": lambda x: keras.ops.stack(keras.ops.unstack(x, 16, axis=1), axis=2),
        "split": lambda x: keras.ops.split(x, 2, axis=1)[1],
    }
    images = {
        "Conv2D": k.Conv2D(3, 3, 2, "same"),
        "Conv2D groups": k.Conv2D(4, 3, groups=2),
        "Conv2D dilated": k.Conv2D(3, 3, dilation_rate=2),
        "Conv2DTranspose": k.Conv2DTranspose(3, 3, 2, "same"),
        "SeparableConv2D": k.SeparableConv2D(3, 3),
        "DepthwiseConv2D": k.DepthwiseConv2D(3),
        "MaxPooling2D": k.MaxPooling2D(2),
        "AveragePooling2D": k.AveragePooling2D(2),
        "GlobalMaxPooling2D": k.GlobalMaxPooling2D(),
        "GlobalAveragePooling2D": k.GlobalAveragePooling2D(),
        "AdaptiveAveragePooling2D": k.AdaptiveAveragePooling2D(3),
        "UpSampling2D": k.UpSampling2D(),
        "UpSampling2D bilinear": k.UpSampling2D(interpolation="bilinear"),
        "Resizing": k.Resizing(5, 5),
        "Resizing nearest": k.Resizing(5, 5, interpolation="nearest"),
        "Resizing bicubic": k.Resizing(5, 5, interpolation="bicubic"),
        "CenterCrop": k.CenterCrop(4, 4),
        "ZeroPadding2D": k.ZeroPadding2D(),
        "reflect": lambda x: keras.ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "reflect"),
        "Cropping2D": k.Cropping2D(),
        "GroupNormalization": k.GroupNormalization(1),
        "SpatialDropout2D": k.SpatialDropout2D(0.5),
    }
    volumes = {
        "Conv3D": k.Conv3D(3, 3, 2, "same"),
        "Conv3DTranspose": k.Conv3DTranspose(3, 3, 2, "same"),
        "MaxPooling3D": k.MaxPooling3D(2),
        "AveragePooling3D": k.AveragePooling3D(2),
        "GlobalAveragePooling3D": k.GlobalAveragePooling3D(),
        "UpSampling3D": k.UpSampling3D(),
        "ZeroPadding3D": k.ZeroPadding3D(),
        "Cropping3D": k.Cropping3D(),
        "ConvLSTM2D": k.ConvLSTM2D(2, 3),
    }
    vectors |= {f"ops.{name}": _row_wise(getattr(keras.ops, name)) for name in UNARY}
    vectors |= {
        f"ops.{name}": lambda x, name=name: getattr(keras.ops, name)(x, 2.0 - x)
        for name in BINARY
    }
    branches = dict(vectors=vectors, sequences=sequences, images=images, volumes=volumes)
    return {n: (b, f) for b, all_layers in branches.items() for n, f in all_layers.items()}


def _row_wise(function):
    """Returns a function of `keras.ops` over the axis 1, if it has an axis."""
    has_axis = "axis" in inspect.signature(function).parameters
    return functools.partial(function, axis=1) if has_axis else function


def model(names):
    """Returns a VAE whose encoder joins a branch for each of the layers."""
    x = keras.Input((8, 8, 2))
    chosen, outputs = layers(), []
    for name in names:
        branch, layer = chosen[name]
        y = keras.ops.cast(layer(keras.layers.Reshape(SHAPES[branch])(x)), "float32")
        outputs.append(keras.layers.Reshape((-1,))(y)[:, :1])
    encoder = keras.Model(x, keras.layers.Concatenate()([*outputs, outputs[0]]))
    likelihood = kv.distributions.IndependentNormal((8, 8, 2))
    return kv.VAE(encoder, kv.nets.MLP([4]), likelihood, latent_dim=2, seed=0)
