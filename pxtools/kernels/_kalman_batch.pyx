"""Compiled passes over many series at once: see `kalman_batch_numpy` for the twins, `kalman_lanes_loops.h`."""

import numpy as np


cdef extern from "kalman_lanes_sizes.h" nogil:
    ctypedef struct Part:
        const double *at
        long series
        long step

    ctypedef struct FleetModel:
        Py_ssize_t n
        Py_ssize_t m
        long n_steps
        Part F
        Part H
        Part Q
        Part R
        Part c
        Part d
        Part x
        Part P
        int is_diagonal

    ctypedef struct FleetOut:
        double *log_likelihood
        double *log_likelihood_steps
        double *predicted_mean
        double *predicted_cov
        double *filtered_mean
        double *filtered_cov
        double *residuals
        double *last_mean
        double *last_cov
        double *smoothed_mean
        double *smoothed_cov
        double *statistics
        double *gains
        double *inverses
        double *rows
        double *constants
        long *cancelled
        long *lost

    ctypedef struct Shared:
        const double *gains
        const double *inverses
        const double *rows
        const double *filtered_cov
        const double *constants

    void fleet(const FleetModel *model, const double *y, const long *start, const long *series, long n_series,
               int is_own, int goes_back, FleetOut *out, double *trace, double *work)
    void means(const FleetModel *model, const Shared *shared, const double *y, long start, const long *series,
               long n_series, int goes_back, FleetOut *out, double *trace, double *work)
    void describe(const double *y, long n_series, long size, int wants_hash, unsigned long long *hash, long *n_values,
                  unsigned char *is_bad)
    long trace_doubles(Py_ssize_t n, Py_ssize_t m, long length)
    long work_doubles(Py_ssize_t n, Py_ssize_t m)
    long statistics_size(Py_ssize_t n, Py_ssize_t m)


cdef const double *_input(object array) except NULL:
    cdef const double[::1] flat = array.reshape(-1)
    return &flat[0]


cdef double *_output(dict out, str name) except? NULL:
    if name not in out:
        return NULL
    cdef double[::1] flat = out[name].reshape(-1)
    return &flat[0]


cdef class _Model:
    """Own the memory that a C `FleetModel` points into."""

    cdef FleetModel model
    cdef bint is_own
    cdef list keep

    def __cinit__(self, y, parts):
        n_series, n_steps, m = y.shape
        F, H, Q, R, c, d, x, P = parts
        n = F.shape[2]
        inner = {"F": (n, n), "H": (m, n), "Q": (n, n), "R": (m, m), "c": (n,), "d": (m,), "x": (n,), "P": (n, n)}
        self.model.n, self.model.m, self.model.n_steps = n, m, n_steps
        self.keep = []
        self.is_own = False
        cdef Part part
        for (name, shape), array in zip(inner.items(), parts):
            if name in "xP":
                array = array[:, None]
            if array.shape[2:] != shape or array.shape[0] not in (1, n_series) or array.shape[1] not in (1, n_steps):
                raise ValueError(f"{name} has shape {array.shape}: it does not fit the observations {y.shape}")
            size = int(np.prod(shape))
            array = np.ascontiguousarray(array, dtype=np.float64)
            self.keep.append(array)
            part.at = _input(array)
            part.step = 0 if array.shape[1] == 1 else size
            part.series = 0 if array.shape[0] == 1 else size * array.shape[1]
            if name == "F":
                self.model.F = part
            elif name == "H":
                self.model.H = part
            elif name == "Q":
                self.model.Q = part
            elif name == "R":
                self.model.R = part
                off = array.reshape(-1, m, m)
                self.model.is_diagonal = np.count_nonzero(off) == np.count_nonzero(np.einsum("kii->ki", off))
            elif name == "c":
                self.model.c = part
            elif name == "d":
                self.model.d = part
            elif name == "x":
                self.model.x = part
            else:
                self.model.P = part
            self.is_own |= name not in "xP" and array.shape[0] > 1
        self.is_own |= not self.model.is_diagonal


cdef double *_aligned(double[::1] memory) noexcept nogil:
    cdef size_t at = <size_t>&memory[0]
    return <double *>((at + 63) & ~(<size_t>63))


cdef FleetOut _outputs(dict out):
    cdef FleetOut o
    o.log_likelihood = _output(out, "log_likelihood")
    o.log_likelihood_steps = _output(out, "log_likelihood_steps")
    o.predicted_mean, o.predicted_cov = _output(out, "predicted_mean"), _output(out, "predicted_cov")
    o.filtered_mean, o.filtered_cov = _output(out, "filtered_mean"), _output(out, "filtered_cov")
    o.residuals = _output(out, "standardized_residuals")
    o.last_mean, o.last_cov = _output(out, "last_mean"), _output(out, "last_cov")
    o.smoothed_mean, o.smoothed_cov = _output(out, "smoothed_mean"), _output(out, "smoothed_cov")
    o.statistics = _output(out, "statistics")
    o.gains, o.inverses = _output(out, "gains"), _output(out, "inverses")
    o.rows, o.constants = _output(out, "rows"), _output(out, "constants")
    o.cancelled, o.lost = NULL, NULL
    return o


def lanes_pass(const double[:, :, ::1] y, parts, const long[::1] start, const long[::1] series, dict out):
    """Filter the series, each with its own missing values: see `kalman_batch_numpy.lanes_pass`."""
    cdef _Model holder = _Model(np.asarray(y), parts)
    cdef long n_series = series.shape[0]
    cdef bint goes_back = bool({"smoothed_mean", "smoothed_cov", "statistics", "gains"} & set(out))
    if n_series == 0 or y.shape[1] == 0:
        return
    cdef long length = y.shape[1] if goes_back else 8
    cdef double[::1] trace = np.empty(trace_doubles(holder.model.n, holder.model.m, length) + 8)
    cdef double[::1] work = np.empty(work_doubles(holder.model.n, holder.model.m) + 8)
    cdef long[::1] cancelled = out["cancelled"], lost = out["lost"]
    cdef FleetOut outputs = _outputs(out)
    outputs.cancelled, outputs.lost = &cancelled[0], &lost[0]
    with nogil:
        fleet(&holder.model, &y[0, 0, 0], &start[0], &series[0], n_series, holder.is_own, goes_back, &outputs,
              _aligned(trace), _aligned(work))


def means_pass(const double[:, :, ::1] y, parts, shared, long start, const long[::1] series, dict out):
    """Filter series that share all but their values: see `kalman_batch_numpy.means_pass`."""
    cdef _Model holder = _Model(np.asarray(y), parts)
    cdef long n_series = series.shape[0]
    cdef bint goes_back = "smoothed_mean" in out
    if n_series == 0 or y.shape[1] == 0:
        return
    cdef long length = y.shape[1] if goes_back else 8
    cdef double[::1] trace = np.empty(trace_doubles(holder.model.n, holder.model.m, length) + 8)
    cdef double[::1] work = np.empty(work_doubles(holder.model.n, holder.model.m) + 8)
    cdef Shared tables
    tables.gains, tables.inverses = _input(shared["gains"]), _input(shared["inverses"])
    tables.rows, tables.constants = _input(shared["rows"]), _input(shared["constants"])
    tables.filtered_cov = _input(shared["filtered_cov"])
    cdef FleetOut outputs = _outputs(out)
    with nogil:
        means(&holder.model, &tables, &y[0, 0, 0], start, &series[0], n_series, goes_back, &outputs, _aligned(trace),
              _aligned(work))


def patterns(const double[:, :, ::1] y, bint wants_hash=True):
    """Return a hash of each series' missing values, how many it has, and whether it has infinite ones."""
    cdef long n_series = y.shape[0]
    cdef unsigned long long[::1] hashes = np.zeros(n_series, dtype=np.uint64)
    cdef long[::1] n_values = np.zeros(n_series, dtype=np.int_)
    cdef unsigned char[::1] bad = np.zeros(n_series, dtype=np.uint8)
    if n_series and y.shape[1]:
        with nogil:
            describe(&y[0, 0, 0], n_series, y.shape[1] * y.shape[2], wants_hash, &hashes[0], &n_values[0], &bad[0])
    return np.asarray(hashes), np.asarray(n_values), np.asarray(bad).astype(bool)


def n_statistics(n, m):
    """Return how many sufficient statistics a series has."""
    return statistics_size(n, m)
