"""From a network to an engine file, through Polygraphy's loaders.

What a version can be told comes with the request (`support`, a row of the parent's capability table): nothing here
asks for a version or tries what might not be there.
"""

from __future__ import annotations

import os
import time

import listening
import networks
from networks import RefusedError


class CancelledError(Exception):
    """The parent no longer wants the engine."""


class NotHereError(Exception):
    """The machine lacks what the request needs."""


def build(request, send):
    """Builds an engine into the file `engine`.

    Raises:
        RefusedError: The parser or the builder does not take the model.
        NotHereError: There is no such Deep Learning Accelerator or tactic source.
        CancelledError: The parent stopped it.
    """
    from polygraphy.backend.trt import EngineBytesFromNetwork

    trt = networks.load_library()
    log = listening.listener(trt)
    started = time.time()
    builder, network, parser, refused = networks.parsed(trt, request, log)
    if refused:
        raise RefusedError(refused)
    request["profile"] = profile_with_values(network, request["profile"], request.get("values") or {})
    require_profile(network, request["profile"])
    require_dla(builder, request.get("dla_core"))
    unpinned = pin_float32(trt, network, request)
    calibrator = calibrator_of(trt, request, log)
    monitor = listening.progress_monitor(trt, send) if request["support"]["progress_monitor"] else None
    configuration = Configuration(trt, request, monitor, calibrator)
    try:
        engine = EngineBytesFromNetwork((builder, network, parser), configuration)()
    except NotHereError:
        raise
    except Exception as error:
        settled(calibrator, request, raised=True)
        if send.cancelled.is_set():
            raise CancelledError("the build was cancelled") from error
        reason = " ".join(log.errors) or str(error)
        raise RefusedError([{"node": "", "op_type": "", "reason": reason}]) from error
    counts = settled(calibrator, request, raised=False)
    with open(request["engine"], "wb") as file:
        file.write(engine)
    configuration.keep_timing_cache()
    return dict(
        networks.ends_of(network),
        engine_bytes=os.path.getsize(request["engine"]),
        seconds=time.time() - started,
        warnings=log.warnings,
        unpinned=unpinned,
        calibration=counts,
    )


def profile_with_values(network, shapes, values):
    """One entry per input that needs one: the values of shape tensors, the shapes of others."""
    entries = dict(shapes)
    for tensor in networks.inputs_of(network):
        if tensor.is_shape_tensor:
            entries.pop(tensor.name, None)
            if tensor.name in values:
                entries[tensor.name] = values[tensor.name]
    return entries


def require_profile(network, profile):
    """Refuses what Polygraphy would silently build for size 1, and what needs values that a profile lacks.

    Raises:
        RefusedError: Names the input.
    """
    for tensor in networks.inputs_of(network):
        if tensor.name in profile:
            continue
        if tensor.is_shape_tensor:
            reason = "the input {!r} decides a shape, and engines need its value when they are built".format(
                tensor.name
            )
            raise RefusedError([{"node": tensor.name, "op_type": "graph input", "reason": reason}])
        if -1 in tuple(tensor.shape):
            reason = "the input {!r} has dynamic dimensions and no optimization profile".format(tensor.name)
            raise RefusedError([{"node": tensor.name, "op_type": "graph input", "reason": reason}])


def require_dla(builder, core):
    """Refuses a Deep Learning Accelerator that is not here.

    Raises:
        NotHereError: With how many there are.
    """
    if core is not None and core >= builder.num_DLA_cores:
        raise NotHereError("there is no DLA core {}: this machine has {}".format(core, builder.num_DLA_cores))


def pin_float32(trt, network, request):
    """Holds layers in FP32 where flags let the builder choose; returns the names that no layer has."""
    wanted = set(request.get("float32_layers") or []) if chooses_by_flags(request) else set()
    for index in range(network.num_layers if wanted else 0):
        layer = network.get_layer(index)
        if layer.name not in wanted:
            continue
        wanted.discard(layer.name)
        outputs = range(layer.num_outputs)
        if all(layer.get_output(output).dtype == trt.DataType.FLOAT for output in outputs):
            layer.precision = trt.DataType.FLOAT
            for output in outputs:
                layer.set_output_type(output, trt.DataType.FLOAT)
    return sorted(wanted)


def chooses_by_flags(request):
    """Whether builder flags decide the precision, and not the types in the graph."""
    typed = request["support"]["strongly_typed"]
    return request["support"]["precision_flags"] and (typed == "no" or not request.get("strongly_typed", True))


def calibrator_of(trt, request, log):
    """The calibrator of implicit quantisation, or None."""
    if request.get("calibration") is None:
        return None
    import calibrating

    return calibrating.calibrator_of(trt, request["calibration"], log)


def settled(calibrator, request, raised):
    """What the calibrator consumed; raises what it had to hide while the library was calling it."""
    if calibrator is None:
        return None
    import calibrating

    return calibrating.settle(calibrator, dict(request["calibration"], raised=raised))


class Configuration:
    """The builder's options, as a Polygraphy loader.

    Args:
        trt: The vendor's module.
        request: The build request.
        monitor: The progress monitor, or None.
        calibrator: The calibrator, or None.
    """

    def __init__(self, trt, request, monitor, calibrator):
        self._trt = trt
        self._request = request
        self._monitor = monitor
        self._calibrator = calibrator
        self._config = None

    def __call__(self, builder, network):
        """Creates and fills the builder's configuration."""
        options = self._common()
        if self._trt.__name__ == "tensorrt_rtx":
            from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

            capabilities = [tuple(pair) for pair in self._request["capabilities"]]
            config = CreateConfigRTX(compute_capabilities=capabilities, **options)(builder, network)
        else:
            from polygraphy.backend.trt import CreateConfig

            config = CreateConfig(**dict(options, **self._tensorrt()))(builder, network)
            self._place_on_dla(config)
            self._calibrate(builder, network, config)
        self._config = config
        return config

    def _common(self):
        from polygraphy.backend.trt import Profile

        request, trt = self._request, self._trt
        profile = Profile()
        for name, (smallest, best, largest) in request["profile"].items():
            profile.add(name, min=smallest, opt=best, max=largest)
        options = {"profiles": [profile] if request["profile"] else None}
        if request.get("workspace_bytes"):
            options["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: request["workspace_bytes"]}
        if request.get("optimization_level") is not None:
            options["builder_optimization_level"] = request["optimization_level"]
        if self._monitor is not None:
            options["progress_monitor"] = self._monitor
        return options

    def _tensorrt(self):
        request, trt = self._request, self._trt
        options = {}
        if chooses_by_flags(request):
            options.update(fp16=bool(request.get("fp16")), int8=bool(request.get("int8")))
            if request.get("float32_layers"):
                options["precision_constraints"] = "obey"
        if self._calibrator is not None:
            options["calibrator"] = self._calibrator
        if request.get("version_compatible"):
            options["version_compatible"] = True
        if request.get("hardware_compatible"):
            options["hardware_compatibility_level"] = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        if request.get("tactic_sources"):
            options["tactic_sources"] = [tactic_source(trt, name) for name in request["tactic_sources"]]
        if request.get("timing_cache_in"):
            options["load_timing_cache"] = request["timing_cache_in"]
        return options

    def _place_on_dla(self, config):
        core, trt = self._request.get("dla_core"), self._trt
        if core is None:
            return
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = core
        if self._request.get("gpu_fallback"):
            config.set_flag(trt.BuilderFlag.GPU_FALLBACK)

    def _calibrate(self, builder, network, config):
        if self._calibrator is None:
            return
        import calibrating

        calibrating.attach(self._trt, builder, network, config, self._calibrator, self._request["calibration"])

    def keep_timing_cache(self):
        """Writes what the builder has timed, for the next build."""
        if self._request.get("timing_cache_out"):
            with open(self._request["timing_cache_out"], "wb") as file:
                file.write(self._config.get_timing_cache().serialize())


def tactic_source(trt, name):
    """The tactic source of this name.

    Raises:
        NotHereError: This version has none of that name; the message lists what it has.
    """
    known = trt.TacticSource.__members__
    if name not in known:
        raise NotHereError("there is no tactic source {}: there are {}".format(name, ", ".join(sorted(known))))
    return known[name]
