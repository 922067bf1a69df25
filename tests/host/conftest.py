"""ComfyUI's own code in the test's process, and the pack imported by its path, as ComfyUI does it."""

from __future__ import annotations

import importlib
import inspect

import pytest
import torch

from devtools import in_process
from devtools.environment import SetupError
from tests.small_control_net import small_control_net

try:
    in_process.import_host(exact=not torch.cuda.is_available())  # on a GPU the host's own choice, as users have it
except SetupError as error:
    raise pytest.UsageError(str(error)) from error
in_process.import_pack()


@pytest.fixture(scope="module", autouse=True)
def no_inversion_cache():
    """Every test here inverts anew, and leaves nothing in the user's ComfyUI; servers that other tests start do not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EI2_CACHE_MB", "0")
        yield


@pytest.fixture(scope="session")
def pack():
    """Imports one of the pack's modules: `pack("nodes.load_video")`."""
    return in_process.pack


@pytest.fixture
def inference_mode():
    """What the host runs every node under."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def miniature(pack):
    """MODEL, CLIP and VAE as "EI2 Load Miniature Model" gives them."""
    with torch.inference_mode():
        return pack("host.miniature").load_miniature()


@pytest.fixture(scope="session")
def model(miniature):
    """The miniature's MODEL, shared by all tests, none of which may change it."""
    return miniature[0]


@pytest.fixture(scope="session")
def random_unet():
    """A MODEL of one of the host's families, with random weights: `random_unet("SDXL", unet_config, state)`.

    `state`: what a checkpoint would say of itself, by which the host tells what it predicts.
    """
    import comfy.model_patcher
    import comfy.supported_models

    def random_unet(kind: str, unet_config: dict, state: dict | None = None):
        config = getattr(comfy.supported_models, kind)(unet_config)
        config.unet_config.update({k: v for k, v in unet_config.items() if k.startswith("num_head")})
        config.set_inference_dtype(torch.float32, None)
        generator = torch.Generator().manual_seed(0)
        with torch.inference_mode():
            base = config.get_model(dict(state or {}), "")
            for name, parameter in base.diffusion_model.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                if parameter.ndim > 1:
                    parameter.copy_(noise * parameter.shape[1:].numel() ** -0.5)
                else:
                    parameter.copy_(0.1 * noise + name.endswith("weight"))
        cpu = torch.device("cpu")
        return comfy.model_patcher.ModelPatcher(base, cpu, cpu)

    return random_unet


@pytest.fixture(scope="session")
def encode(miniature):
    """The conditioning of a prompt: `encode("a red circle on a striped blue background")`."""

    def encode(text: str) -> list:
        with torch.inference_mode():
            return miniature[1].encode_from_tokens_scheduled(miniature[1].tokenize(text))

    return encode


@pytest.fixture(scope="session")
def source(encode):
    """The conditioning of one fixed prompt."""
    return encode("a blue square on a dotted white background")


@pytest.fixture(scope="session")
def predicting_v():
    """A MODEL, the miniature's, as a v-prediction model: the host converts nothing, so its ε is made v inside the
    UNet's call."""
    from comfy.patcher_extension import WrappersMP

    def predicting_v(model):
        from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

        (clone,) = ModelSamplingDiscrete().patch(model, "v_prediction", False)
        sampling = clone.get_model_object("model_sampling")

        def as_v(executor, x, timesteps, *args, **kwargs):
            """v = √ᾱ ε - √(1-ᾱ) x₀, where x = √ᾱ x₀ + √(1-ᾱ) ε."""
            noise = executor(x, timesteps, *args, **kwargs)
            sigma = sampling.sigma(timesteps).view(-1, 1, 1, 1)
            a, b = 1 / (1 + sigma**2).sqrt(), sigma / (1 + sigma**2).sqrt()
            return a * noise - b * (x - b * noise) / a

        clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "as_v", as_v)
        return clone

    return predicting_v


@pytest.fixture(scope="session")
def control_net(model):
    """A small ControlNet of random weights, and what puts prompts under it: `net, steer = control_net`, then
    `steer(positive, negative)`, on request with pictures `f h w 3` of one's own."""
    import comfy.controlnet

    from nodes import ControlNetApplyAdvanced

    net = small_control_net()
    with torch.inference_mode():  # as the host makes pictures
        one = torch.rand(1, 48, 80, 3, generator=torch.Generator().manual_seed(1))

    def steer(positive: list, negative: list, hints: torch.Tensor = one) -> tuple[list, list]:
        control = comfy.controlnet.ControlNet(net, load_device=model.load_device, manual_cast_dtype=None)
        return ControlNetApplyAdvanced().apply_controlnet(positive, negative, control, hints, 8.0, 0.0, 1.0)

    return net, steer


@pytest.fixture(scope="session")
def host_node():
    """One of the host's own nodes, of either API: `host_node("nodes_custom_sampler", "SamplerCustom", *inputs)` -> its
    outputs."""

    def host_node(module: str, name: str, *inputs) -> tuple:
        cls = getattr(importlib.import_module(f"comfy_extras.{module}"), name)
        if hasattr(cls, "execute"):
            result = cls.execute(*inputs)
            return getattr(result, "args", result)
        return getattr(cls(), cls.FUNCTION)(*inputs)

    return host_node


@pytest.fixture(scope="session")
def evaluate():
    """Runs a MODEL once through the host's guider: `evaluate(model, latents, positive, negative, cfg, sigma)`.

    `latents` `f c h w` in the host's scale are taken for noisy ones at `sigma`; returns the denoised ones in the
    model's scale.
    """
    from comfy.samplers import KSAMPLER, CFGGuider

    def evaluate(model, latents, positive, negative=None, cfg=1.0, sigma=3.0):
        results = []

        def once(model, x, sigmas, extra_args=None, callback=None, disable=None):
            results.append(model(x, sigmas[0] * x.new_ones(len(x)), **(extra_args or {})))
            return x

        guider = CFGGuider(model)
        guider.inner_set_conds({"positive": positive, **({} if negative is None else {"negative": negative})})
        guider.set_cfg(cfg)
        sigmas = torch.tensor([sigma, 0.0])
        guider.sample(torch.zeros_like(latents), latents, KSAMPLER(once), sigmas, disable_pbar=True, seed=0)
        return results[0]

    return evaluate


@pytest.fixture(scope="session")
def inflate(pack):
    """An inflated MODEL: `inflate(model, "EI2")`, or with options of the Advanced node."""

    def inflate(model, preset: str | None = None, **options):
        settings = pack("ei2.settings")
        chosen = settings.PRESETS[preset] if preset else settings.InflationSettings(**options)
        return pack("nodes.inflate_unet").InflateUNetAdvanced.execute(model, **chosen.to_dict()).args[0]

    return inflate


@pytest.fixture(scope="session")
def tune(pack, source):
    """What "EI2 One-Shot Tune" makes, a tuned MODEL and what was learned, without its plot:
    `tune(model, latents, steps=2, learning_rate=1e-3)`."""
    tuning, inflation = pack("host.tuning"), pack("host.inflation")
    precision_of = pack("host.automatic").training_precision

    def tune(
        model,
        latents,
        positive=None,
        steps=2,
        learning_rate=1e-3,
        seed=0,
        precision="fp32",
        checkpointing="off",
        window_frames=0,
        on_snapshot=None,
        snapshot_steps=(),
    ):
        precision = precision_of(model, precision)
        settings = pack("ei2.tuning").TuneSettings(steps, learning_rate, seed, precision, window_frames=window_frames)
        advance = pack("host.ui").progress(steps)

        def loop(tuning_steps):
            for step in tuning_steps:
                advance()
                if step.number in snapshot_steps:
                    on_snapshot(step.number, step.learned())

        result = tuning.tune_model(model, latents, positive or source, settings, checkpointing, loop)
        return inflation.apply_tune(model, result), result

    return tune


@pytest.fixture(scope="session")
def invert(pack):
    """The outputs of EI2 Invert: `invert(model, clip, positive, steps=4, refine=0, **inputs)`."""

    def invert(model, clip, positive, steps=4, refine=0, **inputs):
        return pack("nodes.invert").Invert.execute(model, {"samples": clip}, positive, steps, refine, **inputs).args

    return invert


@pytest.fixture(scope="session")
def sample(pack):
    """The latents of EI2 Edit Sample: `sample(model, inversion, positive, negative, cfg=1.0, control=None)`."""

    def sample(model, inversion, positive, negative, cfg=1.0, control=None):
        node = pack("nodes.edit_sample").EditSample
        return node.execute(model, inversion, positive, negative, cfg, control).args[0]["samples"]

    return sample


@pytest.fixture(scope="session")
def windowed():
    """A MODEL with the host's context windows: `windowed(model, length=4, overlap=1, ...)`."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    parameters = inspect.signature(ContextWindowsManualNode.execute).parameters

    def windowed(
        model, length=4, overlap=1, schedule="standard_static", loop=False, fuse="pyramid", dim=0, freenoise=False
    ):
        settings = (model, length, overlap, schedule, 1, loop, fuse, dim)
        # newer hosts ask for more, here by the defaults that their nodes show
        known = {"freenoise": freenoise}
        more = {name: value for name, value in known.items() if name in parameters}
        return ContextWindowsManualNode.execute(*settings, **more).args[0]

    return windowed


def random_clip(frames: int = 3, height: int = 6, width: int = 10, seed: int = 0) -> torch.Tensor:
    """Latents `f 4 h w` in the host's scale. Odd sizes lie below the UNet's first level: 6 x 10 becomes 3 x 5."""
    return 5 * torch.randn(frames, 4, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session", name="random_clip")
def random_clip_fixture():
    return random_clip
