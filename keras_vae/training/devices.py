"""The memory of the device that trains."""

import tensorflow as tf
from tensorflow.python.client import device_lib


def is_gpu(device: str) -> bool:
    """Returns True for the name of a GPU, such as the `device` of a variable."""
    return tf.DeviceSpec.from_string(device).device_type == "GPU"


def free_memory(device: str) -> int:
    """Returns the bytes of a GPU that TensorFlow may still use."""
    name = tf.DeviceSpec.from_string(device)
    name = f"/device:{name.device_type}:{name.device_index}"
    # A private module of TensorFlow, which has no public name for this limit.
    limits = {d.name: d.memory_limit for d in device_lib.list_local_devices()}
    return limits[name] - tf.config.experimental.get_memory_info(name)["current"]
