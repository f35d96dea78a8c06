"""The operators that exports use, for each format.

An artefact with other operators runs only without the safe mode of `verify`. The lists hold
the operators of all models of the tests, and of the usual layers of Keras. They compute
numbers: none of them reads or writes files, calls Python or opens connections.
"""

_SAVED_MODEL = frozenset(
    """
    Abs Acos Acosh AddV2 All Any ArgMax ArgMin Asin Asinh Assert Atan Atan2 Atanh
    AvgPool AvgPool3D BatchMatMulV2 BatchToSpaceND BiasAdd Bitcast BitwiseAnd BitwiseXor
    BroadcastArgs BroadcastTo Bucketize Cast Ceil ConcatV2 Const Conv2D
    Conv2DBackpropInput Conv3D Conv3DBackpropInputV2 Cos Cosh Cumprod Cumsum
    DepthwiseConv2dNative DivNoNan Einsum Elu EnsureShape Equal Erf Erfc Exp ExpandDims
    Expm1 Fill Floor FloorDiv FloorMod GatherV2 Greater GreaterEqual Identity IdentityN
    IsFinite IsInf IsNan LeakyRelu Less LessEqual Log Log1p LogSoftmax LogicalAnd
    LogicalNot LogicalOr MatMul MatrixBandPart Max MaxPool MaxPool3D Maximum Mean Min
    Minimum MirrorPad Mul Neg NoOp NotEqual OneHot OnesLike Pack Pad PadV2 Placeholder
    Pow Prod Range ReadVariableOp RealDiv Reciprocal Relu Relu6 Reshape ResizeBicubic
    ResizeBilinear ResizeNearestNeighbor ReverseV2 RightShift Roll Round Rsqrt SelectV2
    Selu Shape Sigmoid Sign Sin Sinh Softmax Softplus Softsign SpaceToBatchND Split Sqrt
    Square SquaredDifference Squeeze StopGradient StridedSlice Sub Sum Tan Tanh
    TensorListFromTensor TensorListGetItem TensorListReserve TensorListSetItem
    TensorListStack Tile TopKV2 Transpose Unpack VarHandleOp ZerosLike
    """.split()
)

_LITERT = frozenset(
    """
    ABS ADD ATAN2 AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BITWISE_XOR
    BROADCAST_ARGS BROADCAST_TO BUCKETIZE CAST CEIL CONCATENATION CONV_2D CONV_3D
    CONV_3D_TRANSPOSE COS CUMSUM DEPTHWISE_CONV_2D DEQUANTIZE DIV ELU EQUAL EXP
    EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GELU GREATER
    GREATER_EQUAL HARD_SWISH LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT
    LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG
    NOT_EQUAL ONE_HOT PACK PAD POW PRELU QUANTIZE REDUCE_ALL REDUCE_ANY REDUCE_MAX
    REDUCE_MIN REDUCE_PROD RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR
    RESIZE_NEAREST_NEIGHBOR REVERSE_V2 RIGHT_SHIFT ROUND RSQRT SELECT SELECT_V2 SHAPE SIGN
    SIN SOFTMAX SPACE_TO_BATCH_ND SPLIT SQRT SQUARE SQUARED_DIFFERENCE STRIDED_SLICE SUB SUM
    TANH TILE TOPK_V2 TRANSPOSE TRANSPOSE_CONV UNPACK ZEROS_LIKE
    """.split()
)

_ONNX = frozenset(
    """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh AveragePool BitShift BitwiseXor Cast
    Ceil Clip Concat ConstantOfShape Conv ConvTranspose Cos Cosh CumSum Div Elu Equal
    Erf Exp Expand Floor Gather GatherND Greater GreaterOrEqual Identity IsInf IsNaN
    LSTM LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max MaxPool Min Mod Mul
    Neg Not OneHot Or Pad Pow Range Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum Relu Reshape Resize ReverseSequence Round Selu Shape Sigmoid Sign Sin Sinh
    Slice Softmax Softplus Softsign Split Sqrt Squeeze Sub Tan Tanh Tile TopK Transpose
    Unsqueeze Where
    """.split()
)

# Calls, conditionals and loops, which custom layers may have. The graphs that they refer to
# are in the same file, and are compared, too.
CALLS = {
    "tf_saved_model": frozenset(
        """
    Case If PartitionedCall StatefulPartitionedCall StatelessCase StatelessIf
    StatelessWhile While
        """.split()
    ),
    "litert": frozenset({"IF", "WHILE"}),
    "onnx": frozenset({"If", "Loop", "Scan"}),
}
OPERATORS = {
    "tf_saved_model": _SAVED_MODEL | CALLS["tf_saved_model"],
    "litert": _LITERT | CALLS["litert"],
    "onnx": _ONNX | CALLS["onnx"],
}

# The operators of TensorFlow's saver, which every SavedModel contains: only its two
# functions may use them.
SAVER = {
    "save": frozenset(
        """
    DisableCopyOnRead MergeV2Checkpoints Pack SaveV2 Select ShardedFilename
    StaticRegexFullMatch StringJoin
        """.split()
    ),
    "restore": frozenset({"AssignVariableOp", "RestoreV2"}),
}
