"""PyTorch, with hand-written code and with pythae: see protocol.py."""

import tempfile

import protocol
import torch
from torch import nn
from torch.nn import functional

BATCH, LATENT, HIDDEN, PIXELS = 128, 20, 400, 784

torch.manual_seed(0)
torch.set_flush_denormal(True)  # as in TensorFlow


def dense(hidden=HIDDEN, latent=LATENT, activation=nn.ReLU, depth=1):
    """Builds the encoder (to both posterior parameters) and the decoder (to logits)."""

    def mlp(n, m):
        widths = [n, *[hidden] * depth]
        inner = [
            part
            for pair in zip(widths, widths[1:], strict=False)
            for part in (nn.Linear(*pair), activation())
        ]
        return nn.Sequential(*inner, nn.Linear(hidden, m))

    return mlp(PIXELS, 2 * latent), mlp(latent, PIXELS)


def conv():
    """The layers of keras_vae's ConvEncoder([32, 64]) and ConvDecoder([64, 32])."""
    encoder = nn.Sequential(
        nn.Conv2d(1, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(7 * 7 * 64, 2 * LATENT),
    )
    decoder = nn.Sequential(
        nn.Linear(LATENT, 7 * 7 * 64),
        nn.ReLU(),
        nn.Unflatten(1, (64, 7, 7)),
        nn.ConvTranspose2d(64, 64, 3, 2, 1, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 3, 2, 1, 1),
        nn.ReLU(),
        nn.Conv2d(32, 1, 1),
    )
    return encoder, decoder


class VAE(nn.Module):
    """uint8 images -> the loss, the mean of the negative bound in nats."""

    def __init__(self, encoder, decoder, grey="soft", bfloat16=False, device="cpu"):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.grey, self.bfloat16, self.device = grey, bfloat16, device
        self.to(device).reset()

    def reset(self):
        """Initialises the weights as in Keras."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.xavier_uniform_(parameter)

    def posterior(self, x):
        with torch.autocast(self.device, torch.bfloat16, self.bfloat16):
            loc, raw = self.encoder(x).chunk(2, 1)
        return loc.float(), functional.softplus(raw.float() + protocol.UNIT_SCALE)

    def logits(self, z):
        with torch.autocast(self.device, torch.bfloat16, self.bfloat16):
            return self.decoder(z).float()

    def forward(self, x):
        x = x.float() / 255
        if self.grey == "binarize":
            x = torch.bernoulli(x)
        loc, scale = self.posterior(x)
        logits = self.logits(loc + scale * torch.randn_like(loc))
        entropy = functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = 0.5 * (scale**2 + loc**2 - 1) - scale.log()
        return (entropy + kl.sum()) / len(x)


class Training:
    """A loop over a permuted index, without DataLoader; reads no value in an epoch.

    With `graph`, the operations of a step are captured in a CUDA graph and launched
    together.
    """

    def __init__(self, model, x, batch, compiled=False, channels_last=False, graph=False):
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.to(memory_format=self.format)
        self.loss = torch.compile(model) if compiled else model
        self.x, self.batch, self.graph = x, batch, graph
        self.total = torch.zeros((), device=x.device)
        self.reset()
        if graph:
            self.step = self.captured()

    def reset(self):
        self.model.reset()
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=1e-3, fused=True, capturable=self.graph
        )

    def step(self, index):
        loss = self.loss(self.x[index].contiguous(memory_format=self.format))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.total += loss.detach()

    def captured(self):
        """Returns the step as a CUDA graph, which always reads the same index tensor."""
        if self.x.device.type != "cuda":
            raise ValueError("CUDA graphs need a GPU")
        fixed = torch.arange(self.batch, device=self.x.device)
        # Steps on another stream first: they create what may not be captured, such as the
        # state of the optimizer.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.step(fixed)
        torch.cuda.current_stream().wait_stream(stream)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step(fixed)

        def replay(index):
            fixed.copy_(index)
            graph.replay()

        return replay

    def __call__(self, epochs):
        for _ in range(epochs):
            self.total.zero_()
            order = torch.randperm(len(self.x), device=self.x.device)
            indices = order.split(self.batch)
            for index in indices:
                self.step(index)
        return float(self.total) / len(indices)  # waits for the GPU


def loop(
    rows,
    times,
    network="dense",
    grey="soft",
    bfloat16=False,
    device="cpu",
    batch=BATCH,
    hidden=HIDDEN,
    depth=1,
    **options,
):
    """The loop with fused Adam; `options` are those of `Training`."""
    if device == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, the default of the others
    networks = dense(hidden, depth=depth) if network == "dense" else conv()
    shape = {"dense": (PIXELS,), "conv": (1, 28, 28)}[network]
    model = VAE(*networks, grey, bfloat16, device)
    x = torch.from_numpy(protocol.images(rows, shape)).to(device)
    train = Training(model, x, batch, **options)
    train(1)
    return protocol.long_less_short(train, rows, times)


def time_to_nll(target, every, limit, rows, test_rows, samples):
    """The compiled loop until the test NLL is `target`, each time with new weights."""
    networks = dense(hidden=200, latent=50, activation=nn.Tanh, depth=2)
    model = VAE(*networks, grey="binarize")
    x = torch.from_numpy(protocol.images(rows))
    test = torch.from_numpy(protocol.binary_test_images(test_rows))
    train = Training(model, x, 100, compiled=True)

    @torch.no_grad()
    def estimate():
        total = 0.0
        for x in test.split(10):
            loc, scale = model.posterior(x)
            noise = torch.randn(samples, *loc.shape)
            z = loc + scale * noise
            entropy = functional.binary_cross_entropy_with_logits(
                model.logits(z), x.expand(samples, *x.shape), reduction="none"
            )
            # p(z) / q(z|x): the constants cancel.
            ratio = (0.5 * (noise**2 - z**2) + scale.log()).sum(2)
            log_weight = ratio - entropy.sum(2)
            total -= (log_weight.logsumexp(0) - torch.tensor(samples).log()).sum()
        return float(total) / len(test)

    def repetition():
        train.reset()
        return protocol.time_to(target, every, limit, train, estimate)

    train(every)
    return repetition


# pythae.


def in_pythae():
    """Builds pythae's VAE with the networks of `dense`."""
    from pythae import models
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            mean, log_var = self.network(x).chunk(2, 1)
            return ModelOutput(embedding=mean, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, z):
            return ModelOutput(reconstruction=torch.sigmoid(self.network(z)))

    encoder, decoder = dense()
    config = models.VAEConfig(
        input_dim=(PIXELS,), latent_dim=LATENT, reconstruction_loss="bce"
    )
    return models.VAE(config, Encoder(encoder), Decoder(decoder))


def trainer(rows, times):
    """pythae's trainer, without checkpoints."""
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    losses = []

    class Losses(TrainingCallback):
        def on_log(self, training_config, logs, **kwargs):
            losses.append(logs["train_epoch_loss"])

    folder = tempfile.TemporaryDirectory()
    x = torch.from_numpy(protocol.images(rows)).float() / 255
    trainer = BaseTrainer(
        model=in_pythae(),
        train_dataset=BaseDataset(x, torch.ones(rows)),
        training_config=BaseTrainerConfig(
            output_dir=folder.name,
            learning_rate=1e-3,
            per_device_train_batch_size=BATCH,
        ),
        callbacks=[Losses()],
    )

    def train(epochs):
        trainer.training_config.num_epochs = epochs
        trainer.train()
        return losses[-1]

    train(1)
    repetition = protocol.long_less_short(train, rows, times)
    repetition.folder = folder  # kept until the contestant ends
    return repetition


def get_nll(rows, samples, batch_size):
    """pythae's importance sampling of an untrained model, in decoder rows."""
    model = in_pythae()
    x = torch.from_numpy(protocol.images(rows, part="x_test")).float() / 255

    @torch.no_grad()
    def estimate():
        return model.get_nll(x, n_samples=samples, batch_size=batch_size)

    return protocol.whole(estimate, rows * samples)


def sample(rows, batch_size):
    """pythae's NormalSampler, which returns the means of p(x|z)."""
    from pythae.samplers import NormalSampler

    sampler = NormalSampler(in_pythae())

    @torch.no_grad()
    def draw():
        return sampler.sample(num_samples=rows, batch_size=batch_size)

    return protocol.whole(draw, rows)


if __name__ == "__main__":
    contestants = [loop, time_to_nll, trainer, get_nll, sample]
    protocol.serve({f.__name__: f for f in contestants}, ("torch", "pythae"))
