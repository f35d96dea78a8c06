"""An artefact from somebody else: nothing in it runs before it is checked."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import keras_vae as kv
from keras_vae.exporting import card as cards
from keras_vae.exporting import graphs, inspection, signatures, verify
from tests.refusals import assert_refused

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def vae():
    mlp = kv.nets.MLP([4])
    head = kv.distributions.IndependentNormal((3,))
    return kv.VAE(mlp, kv.nets.MLP([4]), head, latent_dim=2, seed=0)


@pytest.fixture(scope="module")
def export(vae, tmp_path_factory):
    """The path of a SavedModel with one signature."""
    return vae.export(tmp_path_factory.mktemp("export") / "1", names=["encode_mean"])


@pytest.fixture
def copy(export, tmp_path):
    return shutil.copytree(export, tmp_path / "copy")


def write_card(path, **changes):
    """Writes a card whose files and checksums are those of the artefact."""
    file, markdown = cards.paths(path)
    card = json.loads(file.read_text()) | changes
    file.unlink(), markdown.unlink()
    cards.write(card, path, path)


def refused(vae, path, *words, **options):
    """Asserts that the artefact is refused before its process starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "run", lambda *_, **__: pytest.fail("the artefact ran"))
        return assert_refused(lambda: verify.verify(vae, path, X, 4, **options), *words)


# SavedModels made with TensorFlow: what their `encode_mean` does beside its work.


def write(path):
    return tf.io.write_file(path, "taken")


def write_in_a_loop(path):
    return tf.while_loop(lambda i: i < 1, lambda i: (_after(write(path), i + 1),), [0])[0]


def write_in_a_branch(path):
    now = tf.timestamp() > 0
    return tf.cond(now, lambda: _after(write(path), 1), lambda: 0)


def _after(operation, value):
    with tf.control_dependencies([operation]):
        return tf.identity(value)


def save_a_checkpoint(path):
    return tf.raw_ops.SaveV2(
        prefix=path, tensor_names=["a"], shape_and_slices=[""], tensors=[tf.zeros(1)]
    )


BESIDES = {
    "WriteFile": write,
    "ReadFile": lambda path: tf.io.read_file(__file__),
    "MatchingFiles": lambda path: tf.io.matching_files("/*"),
    "PrintV2": lambda path: tf.print("taken", output_stream=f"file://{path}"),
    "PyFunc": lambda path: tf.numpy_function(lambda: 0, [], tf.int64),
    "SaveV2": save_a_checkpoint,
    "RestoreV2": lambda path: tf.raw_ops.RestoreV2(
        prefix="a", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
    )[0],
    "WriteFile in a loop": write_in_a_loop,
    "WriteFile in a branch": write_in_a_branch,
}


def saved_model(export, path, beside, module=None):
    """Saves a SavedModel whose signature also does something else, and its card."""
    module = module or tf.Module()
    module.loaded = tf.saved_model.load(str(export))  # holds the variables
    inner = module.loaded.signatures["encode_mean"]

    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32, name="x")])
    def encode_mean(x):
        with tf.control_dependencies([beside(str(path.parent / "taken"))]):
            return inner(x=tf.identity(x))

    signatures = {"encode_mean": encode_mean, "serving_default": encode_mean}
    tf.saved_model.save(module, str(path), signatures=signatures)
    for file in cards.paths(export):
        shutil.copy(file, path)
    write_card(path)
    return path


@pytest.mark.parametrize("name", BESIDES)
def test_operators_other_than_those_of_exports_are_refused(vae, export, tmp_path, name):
    path = saved_model(export, tmp_path / "bad", BESIDES[name])
    refused(vae, path, "--no-safe-mode", name.split()[0])
    assert not (tmp_path / "taken").exists()


def test_a_table_that_reads_a_file_when_it_is_loaded_is_refused(vae, export, tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("a\nb\n")
    lines = tf.lookup.TextFileInitializer(
        str(file), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
    )  # fmt: skip
    module = tf.Module()
    module.table = tf.lookup.StaticHashTable(lines, -1)
    path = saved_model(
        export, tmp_path / "bad", lambda _: module.table.lookup(tf.constant("a")), module
    )
    assert "assets" in refused(vae, path)
    # Without a copy of the file among the assets.
    shutil.rmtree(path / "assets")
    write_card(path)
    refused(vae, path, "InitializeTableFromTextFileV2")


def test_without_the_safe_mode_other_operators_run(vae, export, tmp_path):
    path = saved_model(export, tmp_path / "mine", write)
    differences = verify.verify(vae, path, X, 4, safe_mode=False)
    assert (tmp_path / "taken").exists()
    assert {(d.signature, d.agrees) for d in differences} == {
        ("encode_mean", True),
        ("serving_default", True),
    }


# SavedModels changed by hand: ways to the operators of TensorFlow's own saver.


def call_from_a_signature(graph, save, restore):
    function = next(
        f for f in graph.graph_def.library.function if "wrapper" in f.signature.name
    )
    node = function.node_def.add(name="beside", op="StatefulPartitionedCall")
    node.attr["f"].func.name = save


def call_from_the_main_graph(graph, save, restore):
    node = graph.graph_def.node.add(name="beside", op="StatefulPartitionedCall")
    node.attr["f"].func.name = restore


def call_by_its_name(graph, save, restore):
    graph.graph_def.node.add(name="beside", op=save)


def depend_on_the_saver(graph, save, restore):
    graph.graph_def.node[0].input.append(f"^{graph.saver_def.restore_op_name}")


def return_the_saver(graph, save, restore):
    output = graph.signature_def["encode_mean"].outputs["mean"]
    output.name = graph.saver_def.save_tensor_name


def start_with_the_saver(graph, save, restore):
    start = graph.collection_def["saved_model_main_op"].node_list
    start.value[:] = [graph.saver_def.save_tensor_name.partition(":")[0]]


def initialise_with_the_saver(graph, save, restore):
    node = graph.object_graph_def.nodes.add()
    node.bare_concrete_function.concrete_function_name = save


def save_when_restored(graph, save, restore):
    saver = graph.saver_def
    saver.restore_op_name = saver.save_tensor_name.partition(":")[0]


def write_in_the_saver(graph, save, restore):
    function = next(f for f in graph.graph_def.library.function if f.signature.name == save)
    function.node_def.add(name="beside", op="WriteFile")


def no_object_graph(graph, save, restore):
    graph.ClearField("object_graph_def")


def an_operator_of_nobody(graph, save, restore):
    graph.graph_def.node.add(name="beside", op="Tak\n\x1b[31men")


def rename_a_function_to_an_operator(graph, save, restore):
    (function,) = (f for f in graph.graph_def.library.function if f.signature.name == save)
    (node,) = (n for n in graph.graph_def.node if n.attr["f"].func.name == save)
    function.signature.name = node.attr["f"].func.name = "MatMul"


CHANGES = {
    call_from_a_signature: "SaveV2",
    call_from_the_main_graph: "RestoreV2",
    call_by_its_name: "SaveV2",
    depend_on_the_saver: "RestoreV2",
    return_the_saver: "SaveV2",
    start_with_the_saver: "SaveV2",
    initialise_with_the_saver: "SaveV2",
    save_when_restored: "SaveV2",
    write_in_the_saver: "WriteFile",
    no_object_graph: graphs.OTHER_GRAPHS,
    an_operator_of_nobody: r"Tak\n\x1b[31men",
    rename_a_function_to_an_operator: "SaveV2",
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_operators_of_the_saver_are_its_own(vae, copy, change):
    file = copy / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    (graph,) = saved.meta_graphs
    names = [f.signature.name for f in graph.graph_def.library.function]
    save, restore = (next(n for n in names if n.startswith(f"__inference__traced_{job}"))
                     for job in ("save", "restore"))  # fmt: skip
    change(graph, save, restore)
    file.write_bytes(saved.SerializeToString())
    write_card(copy)
    refused(vae, copy, CHANGES[change])


def test_a_second_graph_is_refused(vae, copy):
    file = copy / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    saved.meta_graphs.add().CopyFrom(saved.meta_graphs[0])
    file.write_bytes(saved.SerializeToString())
    write_card(copy)
    refused(vae, copy, graphs.OTHER_GRAPHS)


@pytest.mark.parametrize(
    "name", ["saved_model.pbtxt", "saved_model.cpb", "keras_metadata.pb"]
)
def test_files_that_exports_do_not_write_are_refused(vae, copy, name):
    (copy / name).write_text("")
    refused(vae, copy, name, "is not in the card")
    write_card(copy)
    refused(vae, copy, name, "is not a file of tf_saved_model")


# LiteRT and ONNX.


def test_a_custom_operator_of_litert_is_refused(vae, tmp_path):
    from tensorflow.lite.python import schema_py_generated as schema

    path = vae.export(tmp_path / "m.tflite", "litert", names=["decode"])
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    code = model.operatorCodes[0]
    code.builtinCode, code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM, 32
    code.customCode = "FlexWriteFile"
    import flatbuffers

    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    write_card(path)
    refused(vae, path, "CUSTOM FlexWriteFile")


def onnx_model(change):
    """Returns the bytes of an ONNX model with an operator, changed."""
    onnx = pytest.importorskip("onnx")
    helper, f32 = onnx.helper, onnx.TensorProto.FLOAT
    x, y = (helper.make_tensor_value_info(n, f32, [None, 2]) for n in ("z", "mean"))
    graph = helper.make_graph([helper.make_node("Abs", ["z"], ["mean"])], "g", [x], [y])
    model = helper.make_model(graph)
    change(onnx, model)
    return model.SerializeToString()


def onnx_domain(onnx, model):
    model.graph.node[0].domain = "com.microsoft"


def onnx_subgraph(onnx, model):
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("EPContext", [], ["a"])], "b", [], []
    )
    node = onnx.helper.make_node("If", ["z"], ["a"], then_branch=body, else_branch=body)
    model.graph.node.append(node)


def onnx_function(onnx, model):
    node = onnx.helper.make_node("Taken", ["a"], ["b"])
    model.functions.append(onnx.helper.make_function("d", "f", ["a"], ["b"], [node], []))


def onnx_file(onnx, model):
    weight = onnx.numpy_helper.from_array(np.zeros(2, np.float32), "w")
    onnx.external_data_helper.set_external_data(weight, "../../etc/passwd")
    weight.ClearField("raw_data")
    model.graph.initializer.append(weight)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (onnx_domain, "com.microsoft.Abs"),
        (onnx_subgraph, "EPContext"),
        (onnx_function, "Taken"),
        (onnx_file, graphs.EXTERNAL_DATA),
    ],
)
def test_other_operators_and_files_of_onnx_are_refused(vae, export, tmp_path, change, word):
    path = tmp_path / "o"
    path.mkdir()
    (path / "decode.onnx").write_bytes(onnx_model(change))
    for file in cards.paths(export):
        shutil.copy(file, path)
    card = json.loads((path / "model_card.json").read_text())
    write_card(
        path, format="onnx", signatures={"decode": card["signatures"]["encode_mean"]}
    )
    refused(vae, path, word)


# The card.


def test_signatures_that_the_card_does_not_list_are_refused(vae, tmp_path):
    path = vae.export(tmp_path / "1", names=["decode", "encode_mean"])
    card = inspection.read_card(path)
    for name in card["signatures"]:
        rest = {key: value for key, value in card["signatures"].items() if key != name}
        write_card(path, signatures=rest, serving_default=next(iter(rest)))
        refused(vae, path, name, "signatures")


def test_the_signature_that_a_server_runs_by_default_is_compared(vae, export, monkeypatch):
    def run(jobs, timeout):
        x = jobs[0]["feeds"]["serving_default/x"]
        mean = signatures.encode_mean(vae, x)["mean"].numpy()
        return [({"encode_mean/mean": mean, "serving_default/mean": mean + 1}, {})]

    monkeypatch.setattr(verify, "run", run)
    verdicts = {d.signature: d.agrees for d in verify.verify(vae, export, X, 4)}
    assert verdicts == {"encode_mean": True, "serving_default": False}


@pytest.mark.parametrize("name", ["../outside", "{folder}/outside"])
def test_names_that_leave_the_folder_are_refused(vae, copy, name):
    outside = copy.parent / "outside"
    os.mkfifo(outside)  # opening it would block
    card = inspection.read_card(copy)
    name = name.format(folder=copy.parent)
    changed = card["files"] | {name: {"sha256": "0"}}
    (copy / "model_card.json").write_text(json.dumps(card | {"files": changed}))
    # Long paths are cut in the middle.
    refused(vae, copy, name[:40], "is missing")


@pytest.mark.parametrize("name", ["saved_model.pb", "variables", "model_card.json", "more"])
def test_links_in_an_artefact_are_refused(vae, copy, name):
    moved = copy.parent / "moved"
    if (copy / name).exists():
        (copy / name).rename(moved)
    (copy / name).symlink_to(moved)
    refused(vae, copy, name, "links")


def test_the_artefact_itself_may_be_a_link(vae, copy):
    link = copy.parent / "link"
    link.symlink_to(copy)
    inspection.check_graphs(link, inspection.read_card(link))
