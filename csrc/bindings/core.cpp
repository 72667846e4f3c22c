// facenet_fast._core: numpy arrays in, numpy arrays out. The work is in mining/, and the checks that a user reads are in the
// Python face; here is refused only what would be read out of bounds.
#include <algorithm>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "../core/float_environment.hpp"
#include "../core/parallel.hpp"
#include "../mining/miner.hpp"
#include "../mining/neighbors.hpp"
#include "arguments.hpp"

namespace {

using namespace bindings;

mining::Embeddings view_embeddings(const py::array& embeddings) {
    const auto [values, n, size] = view_matrix(embeddings);
    return {values, n, size};
}

// Far more threads than cores gain nothing, and a hundred thousand overflow the stack on which libgomp lists its team.
int some_threads(int n_threads) {
    const unsigned enough = std::max(64U, 2 * std::thread::hardware_concurrency());
    return std::min(n_threads, static_cast<int>(enough));
}

// What all of mining is asked with: a batch and its grouping, a rule, a seed and a wish for threads.
struct Call {
    mining::Workspace& workspace;
    mining::Embeddings rows;
    Grouped grouped;
    bool bank_positives;
    const mining::Rule& rule;
    std::uint64_t seed;
    int n_threads;

    mining::Grouping grouping() const noexcept { return {grouped.order, grouped.offsets}; }
};

struct Answer {
    Array<std::int32_t> anchors, positives, thirds;
    std::int64_t bad_row = -1;
    mining::Found found;
};

// Checks what would be read out of bounds, mines, and collects the results where there are any.
Answer run(const Call& call, const mining::Assignment& assignment) {
    const mining::Settings settings{call.rule, call.seed, call.n_threads, call.grouped.is_anchor, assignment};
    Answer answer;
    std::optional<mining::Groups> groups;
    {
        const py::gil_scoped_release release;
        const core::DefaultFloatEnvironment environment;
        mining::Batch batch(call.rows, call.grouping(), simd::kernels(), call.n_threads, call.workspace.batch);
        answer.bad_row = batch.bad_row();
        if (answer.bad_row < 0) {
            groups.emplace(call.grouped.offsets, call.grouped.members, call.bank_positives, call.workspace.groups);
            answer.found = mining::mine(settings, batch, *groups, call.workspace);
        }
    }
    if (answer.bad_row >= 0 || assignment.task == mining::Task::kList) { return answer; }
    const auto n = static_cast<py::ssize_t>(answer.found.n_results);
    answer.anchors = Array<std::int32_t>(n);
    answer.positives = Array<std::int32_t>(n);
    answer.thirds = Array<std::int32_t>(n);
    std::int32_t* out[] = {answer.anchors.mutable_data(), answer.positives.mutable_data(), answer.thirds.mutable_data()};
    const py::gil_scoped_release release;
    mining::collect(settings, *groups, call.grouped.order, call.workspace, out[0], out[1], out[2]);
    return answer;
}

Call make_call(mining::Workspace& workspace, const py::array& embeddings, const Array<std::int32_t>& order,
               const Array<std::int64_t>& offsets, const Array<std::int64_t>& members, bool bank_positives,
               const Array<std::uint8_t>& is_anchor, const mining::Rule& rule, std::uint64_t seed, int threads) {
    const mining::Embeddings rows = view_embeddings(embeddings);
    const Grouped grouped = check_grouped(order, offsets, members, is_anchor, rows.n);
    const int n_threads = some_threads(mining::threads_for(rows.n, rows.size, threads));
    return {workspace, rows, grouped, bank_positives, rule, seed, n_threads};
}

// ((anchor, positive, negative), bad_row, (pairs, pairs with a candidate), (sum of d_ap, sum of d_an)): bad_row >= 0 says
// which row of the embeddings is not finite.
py::tuple mine(mining::Workspace& workspace, const py::array& embeddings, const Array<std::int32_t>& order,
               const Array<std::int64_t>& offsets, const Array<std::int64_t>& members, bool bank_positives,
               const Array<std::uint8_t>& is_anchor, const mining::Rule& rule, std::uint64_t seed, int threads) {
    check_picks(rule);
    const Answer answer = run(
        make_call(workspace, embeddings, order, offsets, members, bank_positives, is_anchor, rule, seed, threads), {});
    return py::make_tuple(py::make_tuple(answer.anchors, answer.positives, answer.thirds), answer.bad_row,
                          py::make_tuple(answer.found.n_pairs, answer.found.n_with_negative),
                          py::make_tuple(answer.found.sum_d_ap, answer.found.sum_d_an));
}

// ((anchor, positive, number of candidates), bad_row), by pair.
py::tuple count(mining::Workspace& workspace, const py::array& embeddings, const Array<std::int32_t>& order,
                const Array<std::int64_t>& offsets, const Array<std::int64_t>& members, bool bank_positives,
                const Array<std::uint8_t>& is_anchor, const mining::Rule& rule, std::uint64_t seed, int threads) {
    const mining::Rule plain = mining::without_picks(rule);
    const Answer answer = run(
        make_call(workspace, embeddings, order, offsets, members, bank_positives, is_anchor, plain, seed, threads),
        {.task = mining::Task::kCount});
    return py::make_tuple(py::make_tuple(answer.anchors, answer.positives, answer.thirds), answer.bad_row);
}

// The negatives of the ranks, by pair; -1 where the rank is, too.
Array<std::int32_t> take(mining::Workspace& workspace, const py::array& embeddings, const Array<std::int32_t>& order,
                         const Array<std::int64_t>& offsets, const Array<std::int64_t>& members, bool bank_positives,
                         const Array<std::uint8_t>& is_anchor, const mining::Rule& rule, std::uint64_t seed, int threads,
                         const Array<std::int64_t>& row_starts, const Array<std::int64_t>& ranks) {
    const mining::Rule plain = mining::without_picks(rule);
    const Call call =
        make_call(workspace, embeddings, order, offsets, members, bank_positives, is_anchor, plain, seed, threads);
    check_row_starts(row_starts, call.rows.n, ranks.size());
    if (!is_aligned(ranks)) { throw py::value_error("ranks must be aligned in memory"); }
    return run(call, {.task = mining::Task::kTake, .ranks = view(ranks), .row_starts = view(row_starts)}).thirds;
}

// (all candidates of all pairs, (sum of d_ap, sum of d_an)); how many there are is known from count().
py::tuple every(mining::Workspace& workspace, const py::array& embeddings, const Array<std::int32_t>& order,
                const Array<std::int64_t>& offsets, const Array<std::int64_t>& members, bool bank_positives,
                const Array<std::uint8_t>& is_anchor, const mining::Rule& rule, std::uint64_t seed, int threads,
                const Array<std::int64_t>& row_starts, std::int64_t n) {
    if (n < 0) { throw py::value_error("n must be the number of candidates"); }
    const mining::Rule plain = mining::without_picks(rule);
    const Call call =
        make_call(workspace, embeddings, order, offsets, members, bank_positives, is_anchor, plain, seed, threads);
    check_row_starts(row_starts, call.rows.n, n);
    Array<std::int32_t> negatives(n);
    const std::span listed(negatives.mutable_data(), static_cast<std::size_t>(n));
    std::ranges::fill(listed, -1);
    const Answer answer = run(call, {.task = mining::Task::kList, .row_starts = view(row_starts), .listed = listed});
    if (answer.bad_row >= 0) { throw py::value_error("a row of the embeddings is not finite"); }
    if (std::ranges::find(listed, -1) != listed.end()) { throw py::value_error("n must be the number of candidates"); }
    for (std::int32_t& negative : listed) { negative = view(order)[static_cast<std::size_t>(negative)]; }
    return py::make_tuple(negatives, py::make_tuple(answer.found.sum_d_ap, answer.found.sum_d_an));
}

// (indices, squared distances, bad_row), k of each query.
py::tuple neighbors(mining::Workspace& workspace, const py::array& embeddings, const Array<std::int32_t>& order,
                    std::size_t first_query, std::size_t n_database, const Array<std::int64_t>& begins,
                    const Array<std::int64_t>& ends, std::size_t k, int threads) {
    const mining::Embeddings rows = view_embeddings(embeddings);
    check_order(order, rows.n);
    if (n_database > rows.n || first_query > rows.n || (first_query != 0 && first_query != n_database) || k == 0) {
        throw py::value_error("queries must follow the database, or be all of it");
    }
    const std::size_t n_queries = rows.n - first_query;
    bool inside = begins.ndim() == 1 && ends.ndim() == 1 && is_aligned(begins) && is_aligned(ends) &&
                  view(begins).size() == n_queries && view(ends).size() == n_queries;
    for (std::size_t i = 0; inside && i < n_queries; ++i) {
        inside = 0 <= view(begins)[i] && view(begins)[i] <= view(ends)[i] &&
                 view(ends)[i] <= static_cast<std::int64_t>(n_database);
    }
    const auto query_rows = view(order).subspan(first_query);
    inside = inside && std::ranges::all_of(query_rows, [first_query](std::int32_t row) {
                 return row >= static_cast<std::int32_t>(first_query);
             });
    if (!inside) { throw py::value_error("every query needs a range of the database's rows"); }
    const int n_threads = some_threads(mining::threads_for(rows.n, rows.size, threads));
    const mining::NeighborsRequest request{n_database, first_query, k, view(begins), view(ends), n_threads};

    const std::vector<py::ssize_t> shape = {static_cast<py::ssize_t>(n_queries), static_cast<py::ssize_t>(k)};
    Array<std::int32_t> indices(shape);
    Array<double> distances(shape);
    const std::span to(indices.mutable_data(), n_queries * k);
    const std::span distances_to(distances.mutable_data(), n_queries * k);
    std::int64_t bad_row = -1;
    {
        const py::gil_scoped_release release;
        const core::DefaultFloatEnvironment environment;
        mining::Batch batch(rows, {view(order), {}}, simd::kernels(), n_threads, workspace.batch);
        bad_row = batch.bad_row();
        if (bad_row < 0) { mining::find_neighbors(request, batch, view(order), workspace.neighbors, to, distances_to); }
    }
    return py::make_tuple(indices, distances, bad_row);
}

template <class Scalar>
py::array gradient_of(const mining::Hinge& hinge, std::span<const std::int32_t> order, std::size_t size,
                      std::size_t stride) {
    const std::vector<py::ssize_t> shape = {static_cast<py::ssize_t>(order.size()), static_cast<py::ssize_t>(size)};
    Array<Scalar> gradient(shape);
    for (std::size_t g = 0; g < order.size(); ++g) {
        Scalar* to = gradient.mutable_data() + static_cast<std::size_t>(order[g]) * size;
        const float* from = hinge.gradient.data() + g * stride;
        for (std::size_t k = 0; k < size; ++k) {
            to[k] = static_cast<Scalar>(static_cast<double>(from[k]) * hinge.gradient_unit);
        }
    }
    return gradient;
}

// (losses, numbers of triplets, gradient, bad_row): by anchor, and the gradient of the losses' sum, each times its weight.
py::tuple hinge(mining::Workspace& workspace, const py::array& embeddings, const Array<std::int32_t>& order,
                const Array<std::int64_t>& offsets, const Array<std::int64_t>& members, bool bank_positives,
                const Array<std::uint8_t>& is_anchor, const mining::Rule& rule, std::uint64_t seed, int threads, double margin,
                const Array<double>& weights) {
    const mining::Rule plain = mining::without_picks(rule);
    const Call call =
        make_call(workspace, embeddings, order, offsets, members, bank_positives, is_anchor, plain, seed, threads);
    const std::size_t n = call.rows.n;
    check_hinge(call.grouped, rule, margin, weights);
    Array<double> losses(static_cast<py::ssize_t>(n));
    Array<std::int64_t> n_triplets(static_cast<py::ssize_t>(n));
    mining::Hinge found;
    std::size_t stride = 0;
    std::int64_t bad_row = -1;
    {
        const py::gil_scoped_release release;
        const core::DefaultFloatEnvironment environment;
        mining::Batch batch(call.rows, call.grouping(), simd::kernels(), call.n_threads, workspace.batch,
                            mining::Origin::kCentred);
        bad_row = batch.bad_row();
        stride = batch.stride();
        if (bad_row < 0) {
            const mining::Groups groups(call.grouped.offsets, call.grouped.members, false, workspace.groups);
            std::vector<double> grouped(n);
            for (std::size_t g = 0; g < n; ++g) { grouped[g] = weights.data()[call.grouped.order[g]]; }
            found = mining::sum_hinges({plain, margin, seed, grouped, call.n_threads}, batch, groups, workspace.pairs,
                                       workspace.hinge);
        }
    }
    if (bad_row >= 0) { return py::make_tuple(losses, n_triplets, py::none(), bad_row); }
    for (std::size_t g = 0; g < n; ++g) {
        losses.mutable_data()[call.grouped.order[g]] = found.losses[g];
        n_triplets.mutable_data()[call.grouped.order[g]] = found.n_triplets[g];
    }
    const bool is_wide = std::holds_alternative<const double*>(call.rows.values);
    const py::array gradient = is_wide ? gradient_of<double>(found, call.grouped.order, call.rows.size, stride)
                                       : gradient_of<float>(found, call.grouped.order, call.rows.size, stride);
    return py::make_tuple(losses, n_triplets, gradient, bad_row);
}

// (pairs of one identity by bin, pairs of two by bin, width of a bin, error of a distance, bad_row).
py::tuple histogram(mining::Workspace& workspace, const py::array& embeddings, const Array<std::int32_t>& order,
                    const Array<std::int64_t>& offsets, std::size_t n_bins, int threads) {
    const mining::Embeddings rows = view_embeddings(embeddings);
    check_order(order, rows.n);
    check_offsets(offsets, rows.n);
    if (n_bins == 0 || n_bins > (std::size_t{1} << 16)) { throw py::value_error("n_bins must be in 1 .. 65536"); }
    const int n_threads = some_threads(mining::threads_for(rows.n, rows.size, threads));
    Array<std::int64_t> same(static_cast<py::ssize_t>(n_bins)), different(static_cast<py::ssize_t>(n_bins));
    const std::span same_to(same.mutable_data(), n_bins), different_to(different.mutable_data(), n_bins);
    mining::Histogram found = {};
    std::int64_t bad_row = -1;
    {
        const py::gil_scoped_release release;
        const core::DefaultFloatEnvironment environment;
        mining::Batch batch(rows, {view(order), view(offsets)}, simd::kernels(), n_threads, workspace.batch,
                            mining::Origin::kCentred);
        bad_row = batch.bad_row();
        if (bad_row < 0) {
            found = mining::count_pairs(batch, view(offsets), n_threads, workspace.histogram, same_to, different_to);
        }
    }
    return py::make_tuple(same, different, found.width, found.error, bad_row);
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
    define_rule(module);

    define(module, "mine", &mine,
           "Mine grouped rows: ((anchor, positive, negative), row that is not finite or -1, (pairs, pairs with a candidate), "
           "(sum of d_ap, sum of d_an)).");
    define(module, "count", &count,
           "Count every pair's candidates: ((anchor, positive, number), row that is not finite or -1).");
    define(module, "take", &take, "Take each pair's candidate of a rank: negatives, or -1.",
           py::arg("row_starts").noconvert(), py::arg("ranks").noconvert());
    define(module, "every", &every, "List all candidates of all pairs, n in all: (negatives, (sum of d_ap, sum of d_an)).",
           py::arg("row_starts").noconvert(), py::arg("n"));
    define(module, "hinge", &hinge,
           "Sum the hinge losses of all candidates: (losses by anchor, numbers of triplets by anchor, gradient, row that is "
           "not finite or -1).",
           py::arg("margin"), py::arg("weights").noconvert());
    module.def("neighbors", &neighbors, py::arg("workspace"), py::arg("embeddings"), py::arg("order").noconvert(),
               py::arg("first_query"), py::arg("n_database"), py::arg("begins").noconvert(), py::arg("ends").noconvert(),
               py::arg("k"), py::arg("threads"),
               "Find each query's k nearest rows: (indices, squared distances, row that is not finite or -1).");
    module.def("histogram", &histogram, py::arg("workspace"), py::arg("embeddings"), py::arg("order").noconvert(),
               py::arg("offsets").noconvert(), py::arg("n_bins"), py::arg("threads"),
               "Count all pairs by squared distance: (of one identity, of two, width of a bin, error of a distance, row that is "
               "not finite or -1).");
    module.def("instruction_sets", &instruction_sets, "What this build and this machine offer, best first.");
    module.def("instruction_set", [] { return std::string(simd::kernels().name); }, "The one in use.");
    module.def("set_instruction_set", &set_instruction_set, py::arg("name"), "Use that one from now on, for all threads.");
    module.def("release_threads", &core::release_threads,
               "Let OpenMP's idle workers go; the next call makes new ones.");
}
