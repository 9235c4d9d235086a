"""Time, share of the ceiling and memory of each backend in each pass."""

from benchmarks.common import BACKENDS, DEVICES, PASSES, WORKLOADS, look_up, measure_all


class Speed:
    """What embconform bench measures, tracked from commit to commit.

    The clock is embconform's own, and asv tracks its results: from version 0.3 on asv_runner makes
    one call a sample where a class has a setup, which is no measure of a call of microseconds.
    """

    params = (BACKENDS, WORKLOADS, PASSES, DEVICES)
    param_names = ("backend", "workload", "pass", "device")
    timeout = 900

    def setup_cache(self):
        """Measure everything once a commit."""
        return measure_all()

    def setup(self, results, *key):
        """Skip what can't be measured, and refuse times of wrong results."""
        self.found = look_up(results, key)
        if self.found["status"] != "ok":
            raise RuntimeError(f"{self.found['status']}: {self.found['detail']}")

    def track_seconds(self, *_):
        """Track the median time of a call."""
        return self.found["time"]["value"]

    def track_share_of_ceiling(self, *_):
        """Track the time that the bytes must take at this machine's copy bandwidth, over it."""
        return self.found["share_of_ceiling"]

    track_seconds.unit = "seconds"
    track_share_of_ceiling.unit = "share"


class Memory(Speed):
    """What a call takes of memory."""

    params = (BACKENDS, WORKLOADS, PASSES[:2], DEVICES)
    track_seconds = track_share_of_ceiling = None

    def track_peak_memory(self, *_):
        """Track how far the resident set rises in a call."""
        return self.found["memory"]["peak_bytes"]

    def track_allocated(self, *_):
        """Track the bytes that torch allocates in a call."""
        return self.found["memory"]["allocated_bytes"]

    track_peak_memory.unit = "bytes"
    track_allocated.unit = "bytes"


class Compiling(Speed):
    """What compiling costs."""

    params = (("compile",), WORKLOADS, ("forward",), DEVICES)
    track_seconds = track_share_of_ceiling = None

    def track_first_call(self, *_):
        """Track the seconds of the first call, compilation included."""
        return self.found["compiled"]["first_call_seconds"]

    def track_recompilations(self, *_):
        """Track the graphs beyond two that calls of other sizes cost."""
        return self.found["compiled"]["recompilations"]

    track_first_call.unit = "seconds"
    track_recompilations.unit = "graphs"
