// facenet_fast._core: numpy arrays in, numpy arrays out. The work is in mining/, and the checks that a user reads are in the
// Python face; here is refused only what would be read out of bounds.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../core/float_environment.hpp"
#include "../core/parallel.hpp"
#include "../mining/miner.hpp"

namespace py = pybind11;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

template <class T>
std::span<const T> view(const Array<T>& array) {
    return {array.data(), static_cast<std::size_t>(array.size())};
}

bool is_aligned(const py::array& array) { return (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0; }

mining::Embeddings view_embeddings(const py::array& embeddings) {
    if (embeddings.ndim() != 2) { throw py::value_error("embeddings must have two dimensions"); }
    if (!is_aligned(embeddings)) { throw py::value_error("embeddings must be aligned in memory"); }
    if (embeddings.shape(0) > std::numeric_limits<std::int32_t>::max()) {
        throw py::value_error("embeddings must have fewer than 2**31 rows");
    }
    const auto n = static_cast<std::size_t>(embeddings.shape(0));
    const auto size = static_cast<std::size_t>(embeddings.shape(1));
    if (py::isinstance<Array<float>>(embeddings)) { return {static_cast<const float*>(embeddings.data()), n, size}; }
    if (py::isinstance<Array<double>>(embeddings)) { return {static_cast<const double*>(embeddings.data()), n, size}; }
    throw py::type_error("embeddings must be a C-contiguous float32 or float64 matrix");
}

mining::Grouping view_grouping(const Array<std::int32_t>& order, const Array<std::int64_t>& offsets, std::size_t n) {
    const mining::Grouping grouping{view(order), view(offsets)};
    if (order.ndim() != 1 || !is_aligned(order) || grouping.order.size() != n ||
        !std::ranges::all_of(grouping.order, [n](auto row) { return row >= 0 && static_cast<std::size_t>(row) < n; })) {
        throw py::value_error("order must hold a row of the embeddings for each of them");
    }
    if (offsets.ndim() != 1 || !is_aligned(offsets) || grouping.offsets.empty() || grouping.offsets.front() != 0 ||
        grouping.offsets.back() != static_cast<std::int64_t>(n) || !std::ranges::is_sorted(grouping.offsets)) {
        throw py::value_error("offsets must rise from 0 to the number of embeddings");
    }
    return grouping;
}

// Far more threads than cores gain nothing, and a hundred thousand overflow the stack on which libgomp lists its team.
int some_threads(int n_threads) {
    const unsigned enough = std::max(64U, 2 * std::thread::hardware_concurrency());
    return std::min(n_threads, static_cast<int>(enough));
}

// ((anchor, positive, negative), bad_row): bad_row >= 0 says which row of the embeddings is not finite.
py::tuple mine(mining::Workspace& workspace, const py::array& embeddings, const Array<std::int32_t>& order,
               const Array<std::int64_t>& offsets, const Array<std::uint8_t>& is_anchor, const std::string& band_name,
               double margin, std::uint64_t seed, int threads) {
    const auto band = mining::band_of_name(band_name);
    if (!band) { throw py::value_error("no band is called '" + band_name + "'"); }
    const mining::Embeddings rows = view_embeddings(embeddings);
    const mining::Grouping grouping = view_grouping(order, offsets, rows.n);
    if (is_anchor.ndim() != 1 || (is_anchor.size() != 0 && view(is_anchor).size() != rows.n)) {
        throw py::value_error("is_anchor must be empty or say it of each of the embeddings");
    }
    const int n_threads = some_threads(mining::threads_for(rows.n, rows.size, threads));
    const mining::Settings settings{*band, margin, seed, n_threads, view(is_anchor)};

    std::int64_t bad_row = -1;
    std::size_t n_triplets = 0;
    std::optional<mining::Groups> groups;
    {
        const py::gil_scoped_release release;
        const core::DefaultFloatEnvironment environment;
        mining::Batch batch(rows, grouping, simd::kernels(), n_threads, workspace.batch);
        bad_row = batch.bad_row();
        if (bad_row < 0) {
            groups.emplace(grouping.offsets, workspace.groups);
            n_triplets = mining::mine(settings, batch, *groups, workspace);
        }
    }
    Array<std::int32_t> anchors(static_cast<py::ssize_t>(n_triplets));
    Array<std::int32_t> positives(static_cast<py::ssize_t>(n_triplets));
    Array<std::int32_t> negatives(static_cast<py::ssize_t>(n_triplets));
    if (bad_row < 0) {
        std::int32_t* out[] = {anchors.mutable_data(), positives.mutable_data(), negatives.mutable_data()};
        const py::gil_scoped_release release;
        mining::collect(settings, *groups, grouping.order, workspace, out[0], out[1], out[2]);
    }
    return py::make_tuple(py::make_tuple(anchors, positives, negatives), bad_row);
}

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const simd::Kernels* table : simd::available()) { names.emplace_back(table->name); }
    return names;
}

void set_instruction_set(const std::string& name) {
    if (simd::choose(name)) { return; }
    std::string choices;
    for (const std::string& choice : instruction_sets()) { choices += (choices.empty() ? "" : ", ") + choice; }
    throw py::value_error("the instruction set must be one of " + choices + " on this machine; got '" + name + "'");
}

}  // namespace

PYBIND11_MODULE(_core, module) {
    module.doc() = "The compiled triplet miner. Use facenet_fast.mining, which checks what it is given.";

    py::class_<mining::Workspace>(module, "Workspace", "Memory that one call after another mines in; one call at a time.")
        .def(py::init<>());

    module.def("mine", &mine, py::arg("workspace"), py::arg("embeddings"), py::arg("order").noconvert(),
               py::arg("offsets").noconvert(), py::arg("is_anchor").noconvert(), py::arg("band"), py::arg("margin"),
               py::arg("seed"), py::arg("threads"),
               "Mine grouped rows: ((anchor, positive, negative), row that is not finite or -1).");
    module.def("instruction_sets", &instruction_sets, "What this build and this machine offer, best first.");
    module.def("instruction_set", [] { return std::string(simd::kernels().name); }, "The one in use.");
    module.def("set_instruction_set", &set_instruction_set, py::arg("name"), "Use that one from now on, for all threads.");
    module.def("release_threads", &core::release_threads,
               "Let OpenMP's idle workers go; the next call makes new ones.");
}
