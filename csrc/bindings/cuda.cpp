// facenet_fast._cuda: the miner on a CUDA device, called as facenet_fast._core is. Rows may lie on a device already, and then
// so do the results. Compiled by the host's compiler; the work is in cuda/.
#include <cuda_runtime.h>

#include <cstdint>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "../cuda/miner.hpp"
#include "arguments.hpp"
#include "device_array.hpp"
#include "device_view.hpp"

namespace {

using namespace bindings;

// What one thread mines in: memory on each device that it mines on, within the same limits.
class Workspace {
  public:
    using Limit = std::optional<std::size_t>;

    Workspace(Limit largest_rows, Limit whole_bytes, Limit stripe_bytes)
        : largest_rows_(largest_rows), whole_bytes_(whole_bytes), stripe_bytes_(stripe_bytes) {}

    cuda::Workspace& of(int device) {
        const auto [place, is_new] = by_device_.try_emplace(device);
        cuda::Workspace& workspace = place->second;
        if (is_new) {
            workspace.largest_rows = largest_rows_.value_or(workspace.largest_rows);
            workspace.whole_bytes = whole_bytes_.value_or(workspace.whole_bytes);
            workspace.stripe_bytes = stripe_bytes_.value_or(workspace.stripe_bytes);
        }
        return workspace;
    }

  private:
    Limit largest_rows_, whole_bytes_, stripe_bytes_;
    std::map<int, cuda::Workspace> by_device_;
};

// Rows to mine, and where: those of the host on the current device, on a stream of the thread's own.
struct Rows {
    Matrix matrix;
    bool on_device;
    int device;
    cudaStream_t stream;
};

int current_device() {
    int device = 0;
    cuda::check(cudaGetDevice(&device));
    return device;
}

Rows rows_of(const py::object& embeddings) {
    if (py::isinstance<DeviceView>(embeddings)) {
        const auto& view = embeddings.cast<const DeviceView&>();
        return {view.matrix(), true, view.device(), view.stream()};
    }
    if (!py::isinstance<py::array>(embeddings)) {
        throw py::type_error("embeddings must be a numpy array or a DeviceView; got " +
                             py::str(py::type::of(embeddings).attr("__name__")).cast<std::string>());
    }
    return {view_matrix(py::reinterpret_borrow<py::array>(embeddings)), false, current_device(), cudaStreamPerThread};
}

// A call with what it reads checked, on the rows' device while this lives.
struct Job {
    Job(Workspace& workspace, const py::object& embeddings, const Array<std::int32_t>& order,
        const Array<std::int64_t>& offsets, const Array<std::int64_t>& members, bool bank_positives,
        const Array<std::uint8_t>& is_anchor, const mining::Rule& rule, std::uint64_t seed)
        : rows(rows_of(embeddings)),
          grouped(check_grouped(order, offsets, members, is_anchor, rows.matrix.n)),
          guard(rows.device),
          call{rows.matrix.values, rows.matrix.n,  rows.matrix.size,  rows.on_device, grouped.order, grouped.offsets,
               grouped.members,    bank_positives, grouped.is_anchor, rule,           seed,          rows.stream},
          memory(workspace.of(rows.device)) {}

    Rows rows;
    Grouped grouped;
    cuda::DeviceGuard guard;
    cuda::Call call;
    cuda::Workspace& memory;
};

template <class Work>
auto without_gil(const Work& work) {
    const py::gil_scoped_release release;
    return work();
}

// Results are where the rows were.
template <class T>
py::object give(cuda::Array<T> values, std::vector<py::ssize_t> shape, const Rows& rows) {
    if (!rows.on_device) { return fetch(values, shape, rows.stream); }
    return py::cast(std::make_shared<DeviceArray>(std::move(values), std::move(shape), rows.device));
}

template <class T>
py::object give(cuda::Array<T> values, const Rows& rows) {
    const auto n = static_cast<py::ssize_t>(values.size());
    return give(std::move(values), {n}, rows);
}

py::tuple columns_of(cuda::Mined& mined, const Rows& rows) {
    return py::make_tuple(give(std::move(mined.anchors), rows), give(std::move(mined.positives), rows),
                          give(std::move(mined.thirds), rows));
}

// ((anchor, positive, negative), bad_row, (pairs, pairs with a candidate), (sum of d_ap, sum of d_an)).
py::tuple mine(Workspace& workspace, const py::object& embeddings, const Array<std::int32_t>& order,
               const Array<std::int64_t>& offsets, const Array<std::int64_t>& members, bool bank_positives,
               const Array<std::uint8_t>& is_anchor, const mining::Rule& rule, std::uint64_t seed, int /*threads*/) {
    check_picks(rule);
    const Job job(workspace, embeddings, order, offsets, members, bank_positives, is_anchor, rule, seed);
    cuda::Mined mined = without_gil([&] { return cuda::mine(job.call, job.memory); });
    return py::make_tuple(columns_of(mined, job.rows), mined.bad_row, py::make_tuple(mined.n_pairs, mined.n_with_negative),
                          py::make_tuple(mined.sum_d_ap, mined.sum_d_an));
}

// ((anchor, positive, number of candidates), bad_row), by pair.
py::tuple count(Workspace& workspace, const py::object& embeddings, const Array<std::int32_t>& order,
                const Array<std::int64_t>& offsets, const Array<std::int64_t>& members, bool bank_positives,
                const Array<std::uint8_t>& is_anchor, const mining::Rule& rule, std::uint64_t seed, int /*threads*/) {
    const Job job(workspace, embeddings, order, offsets, members, bank_positives, is_anchor, rule, seed);
    cuda::Mined mined = without_gil([&] { return cuda::count(job.call, job.memory); });
    return py::make_tuple(columns_of(mined, job.rows), mined.bad_row);
}

// (all candidates of all pairs, (sum of d_ap, sum of d_an)); how many there are is known from count().
py::tuple every(Workspace& workspace, const py::object& embeddings, const Array<std::int32_t>& order,
                const Array<std::int64_t>& offsets, const Array<std::int64_t>& members, bool bank_positives,
                const Array<std::uint8_t>& is_anchor, const mining::Rule& rule, std::uint64_t seed, int /*threads*/,
                const Array<std::int64_t>& row_starts, std::int64_t n) {
    if (n < 0) { throw py::value_error("n must be the number of candidates"); }
    const Job job(workspace, embeddings, order, offsets, members, bank_positives, is_anchor, rule, seed);
    check_row_starts(row_starts, job.call.n, n);
    cuda::Listed listed = without_gil(
        [&] { return cuda::every(job.call, view(row_starts), static_cast<std::size_t>(n), job.memory); });
    if (listed.bad_row >= 0) { throw py::value_error("a row of the embeddings is not finite"); }
    return py::make_tuple(give(std::move(listed.negatives), job.rows), py::make_tuple(listed.sum_d_ap, listed.sum_d_an));
}

// (losses, numbers of triplets, gradient, bad_row): by anchor, on the host, and the gradient of the losses' sum, each times its
// weight; or of their mean over all triplets.
py::tuple hinge(Workspace& workspace, const py::object& embeddings, const Array<std::int32_t>& order,
                const Array<std::int64_t>& offsets, const Array<std::int64_t>& members, bool bank_positives,
                const Array<std::uint8_t>& is_anchor, const mining::Rule& rule, std::uint64_t seed, int /*threads*/,
                double margin, const Array<double>& weights, bool mean) {
    const Job job(workspace, embeddings, order, offsets, members, bank_positives, is_anchor, rule, seed);
    check_hinge(job.grouped, rule, margin, weights);
    cuda::Hinges found = without_gil([&] {
        cuda::Hinges sums = cuda::hinge(job.call, margin, view(weights), job.memory);
        const auto n = std::accumulate(sums.n_triplets.begin(), sums.n_triplets.end(), std::int64_t{0});
        if (mean && n > 0) { cuda::scale(sums.gradient, 1.0 / static_cast<double>(n), job.call.stream); }
        return sums;
    });
    const Array<double> losses(static_cast<py::ssize_t>(found.losses.size()), found.losses.data());
    const Array<std::int64_t> n_triplets(static_cast<py::ssize_t>(found.n_triplets.size()), found.n_triplets.data());
    if (found.bad_row >= 0) { return py::make_tuple(losses, n_triplets, py::none(), found.bad_row); }
    const std::vector<py::ssize_t> shape = {static_cast<py::ssize_t>(job.call.n), static_cast<py::ssize_t>(job.call.size)};
    py::object gradient = std::visit([&](auto& values) { return give(std::move(values), shape, job.rows); }, found.gradient);
    return py::make_tuple(losses, n_triplets, gradient, found.bad_row);
}

template <class T>
std::shared_ptr<DeviceArray> uploaded(const py::array& values, int device) {
    const auto array = py::reinterpret_borrow<Array<T>>(values);
    const cuda::DeviceGuard guard(device);
    cuda::Array<T> to(static_cast<std::size_t>(array.size()));
    cuda::upload(to.data(), view(array), cudaStreamPerThread);
    cuda::check(cudaStreamSynchronize(cudaStreamPerThread));
    return std::make_shared<DeviceArray>(std::move(to), std::vector<py::ssize_t>(array.shape(), array.shape() + array.ndim()),
                                         device);
}

std::shared_ptr<DeviceArray> to_device(const py::array& values, std::optional<int> device) {
    const int to = device ? *device : current_device();
    if (is_aligned(values) && values.ndim() > 0) {
        if (py::isinstance<Array<std::int32_t>>(values)) { return uploaded<std::int32_t>(values, to); }
        if (py::isinstance<Array<float>>(values)) { return uploaded<float>(values, to); }
        if (py::isinstance<Array<double>>(values)) { return uploaded<double>(values, to); }
    }
    throw py::type_error("values must be an aligned, C-contiguous array of int32, float32 or float64; got " +
                         py::str(values.dtype()).cast<std::string>() + " of shape " +
                         py::str(values.attr("shape")).cast<std::string>());
}

py::array array_of(const DeviceArray& array, const py::object& dtype, const py::object& copy) {
    if (copy.is(py::bool_(false))) {
        throw py::value_error("copy must not be False: the array is on a CUDA device, and numpy's are on the host");
    }
    py::array fetched = array.to_numpy();
    return dtype.is_none() ? fetched : py::array(fetched.attr("astype")(dtype, py::arg("copy") = false));
}

py::capsule dlpack_of(const std::shared_ptr<DeviceArray>& array, const py::object& /*stream*/,
                      const py::object& /*max_version*/, const py::object& dl_device, const py::object& copy) {
    if (!dl_device.is_none() &&
        dl_device.cast<std::pair<std::int32_t, std::int32_t>>() != std::pair(dlpack::kCuda, array->device())) {
        throw py::buffer_error("an array of the miner's must be taken where it is: to_numpy() gives a copy on the host");
    }
    if (copy.is(py::bool_(true))) { throw py::buffer_error("copy must not be True: what is handed over is the array itself"); }
    return DeviceArray::to_dlpack(array);
}

std::string repr(const DeviceArray& array) {
    return "DeviceArray(shape=" + py::str(py::tuple(py::cast(array.shape()))).cast<std::string>() +
           ", dtype=" + py::str(array.dtype()).cast<std::string>() + ", device=" + std::to_string(array.device()) + ")";
}

// (number, name, (major, minor) compute capability, bytes of memory) of each; one sentence where there are none.
py::list devices() {
    int n = 0;
    const cudaError_t status = cudaGetDeviceCount(&n);
    if (status != cudaSuccess) { static_cast<void>(cudaGetLastError()); }
    if (status == cudaErrorInsufficientDriver) {
        throw std::runtime_error("there is no NVIDIA driver, or it is too old for the CUDA " +
                                 std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10) +
                                 " of this build");
    }
    if (status == cudaErrorNoDevice || (status == cudaSuccess && n == 0)) {
        throw std::runtime_error("there is no CUDA device, or CUDA_VISIBLE_DEVICES hides it");
    }
    if (status != cudaSuccess) {
        throw std::runtime_error(std::string("CUDA says: ") + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) +
                                 ")");
    }
    py::list found;
    for (int device = 0; device < n; ++device) {
        cudaDeviceProp properties = {};
        cuda::check(cudaGetDeviceProperties(&properties, device));
        found.append(py::make_tuple(device, std::string(properties.name), py::make_tuple(properties.major, properties.minor),
                                    properties.totalGlobalMem));
    }
    return found;
}

bool is_emulated() {
#ifdef FACENET_FAST_EMULATED_CUDA
    return true;
#else
    return false;
#endif
}

}  // namespace

PYBIND11_MODULE(_cuda, module) {
    module.doc() = "The triplet miner on a CUDA device. Use facenet_fast.mining, which checks what it is given.";

    py::class_<Workspace>(module, "Workspace", "Memory that one call after another mines in; one call at a time.")
        .def(py::init<Workspace::Limit, Workspace::Limit, Workspace::Limit>(), py::kw_only(),
             py::arg("largest_rows") = py::none(), py::arg("whole_bytes") = py::none(),
             py::arg("stripe_bytes") = py::none());
    define_rule(module, py::module_local());  // _core has the same class

    py::class_<DeviceView>(module, "DeviceView", "Somebody's array on a CUDA device, looked into where it lies.")
        .def_property_readonly("shape", [](const DeviceView& view) { return py::tuple(py::cast(view.shape())); })
        .def_property_readonly("dtype", &DeviceView::dtype, "Its name: numpy's, or bfloat16.")
        .def_property_readonly("device", &DeviceView::device)
        .def_property_readonly("can_be_mined", &DeviceView::can_be_mined, "Whether it is what the miner reads where it lies.")
        .def("to_numpy", &DeviceView::to_numpy, "Copy it to the host; bfloat16 becomes float32.");

    py::class_<DeviceArray, std::shared_ptr<DeviceArray>>(module, "DeviceArray", "Results on a CUDA device.")
        .def_property_readonly("shape", [](const DeviceArray& array) { return py::tuple(py::cast(array.shape())); })
        .def_property_readonly("dtype", &DeviceArray::dtype)
        .def_property_readonly("device", &DeviceArray::device)
        .def_property_readonly("__cuda_array_interface__", &DeviceArray::interface)
        .def("__dlpack__", &dlpack_of, py::kw_only(), py::arg("stream") = py::none(), py::arg("max_version") = py::none(),
             py::arg("dl_device") = py::none(), py::arg("copy") = py::none())
        .def("__dlpack_device__", [](const DeviceArray& array) { return py::make_tuple(dlpack::kCuda, array.device()); })
        .def("__len__", [](const DeviceArray& array) { return array.shape().front(); })
        .def("__array__", &array_of, py::arg("dtype") = py::none(), py::arg("copy") = py::none())
        .def("__repr__", &repr)
        .def("to_numpy", &DeviceArray::to_numpy, "Copy it to the host.");

    define(module, "mine", &mine,
           "Mine grouped rows: ((anchor, positive, negative), row that is not finite or -1, (pairs, pairs with a candidate), "
           "(sum of d_ap, sum of d_an)).");
    define(module, "count", &count,
           "Count every pair's candidates: ((anchor, positive, number), row that is not finite or -1).");
    define(module, "every", &every, "List all candidates of all pairs, n in all: (negatives, (sum of d_ap, sum of d_an)).",
           py::arg("row_starts").noconvert(), py::arg("n"));
    define(module, "hinge", &hinge,
           "Sum the hinge losses of all candidates: (losses by anchor, numbers of triplets by anchor, gradient, row that is "
           "not finite or -1).",
           py::arg("margin"), py::arg("weights").noconvert(), py::arg("mean") = false);
    module.def("device_view", [](const py::object& values) { return std::make_unique<DeviceView>(values); }, py::arg("values"),
               "Look into an array on a CUDA device, by DLPack or the CUDA array interface.");
    module.def("to_device", &to_device, py::arg("values").noconvert(), py::arg("device") = py::none(),
               "Copy a numpy array to a device, of a number or the current one.");
    module.def("devices", &devices,
               "List the CUDA devices: (number, name, compute capability, bytes of memory); RuntimeError without any.");
    module.def("is_emulated", &is_emulated, "Whether this build runs on the CPU in a device's place, as tests do.");
#ifdef FACENET_FAST_EMULATED_CUDA
    module.def("limit_memory", &emulated_cuda::set_memory_limit, py::arg("n_bytes"), "Let the emulated device have no more.");
    module.def("live_bytes", &emulated_cuda::live_bytes, "How much of it is somebody's.");
#endif
}
