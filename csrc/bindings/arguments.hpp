// What the Python modules of the miner are called with, and its checks. What a user reads is said by the Python face; here is
// refused only what would be read out of bounds.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "../mining/rule.hpp"

namespace bindings {

namespace py = pybind11;

template <class T>
using Array = py::array_t<T, py::array::c_style>;

template <class T>
std::span<const T> view(const Array<T>& array) {
    return {array.data(), static_cast<std::size_t>(array.size())};
}

inline bool is_aligned(const py::array& array) { return (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0; }

// n rows of size numbers, C order.
struct Matrix {
    std::variant<const float*, const double*> values;
    std::size_t n, size;
};

inline Matrix view_matrix(const py::array& embeddings) {
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

// Rows of the embeddings, each once or not at all: what is read by them is inside.
inline void check_order(const Array<std::int32_t>& order, std::size_t n) {
    if (order.ndim() != 1 || !is_aligned(order) || view(order).size() != n ||
        !std::ranges::all_of(view(order), [n](auto row) { return row >= 0 && static_cast<std::size_t>(row) < n; })) {
        throw py::value_error("order must hold a row of the embeddings for each of them");
    }
}

inline void check_offsets(const Array<std::int64_t>& offsets, std::size_t n) {
    const auto begins = view(offsets);
    if (offsets.ndim() != 1 || !is_aligned(offsets) || begins.empty() || begins.front() != 0 ||
        begins.back() != static_cast<std::int64_t>(n) || !std::ranges::is_sorted(begins)) {
        throw py::value_error("offsets must rise from 0 to the number of embeddings");
    }
}

inline void check_groups(const Array<std::int64_t>& offsets, const Array<std::int64_t>& members, std::size_t n) {
    check_offsets(offsets, n);
    const auto begins = view(offsets), ends = view(members);
    bool inside = members.ndim() == 1 && is_aligned(members) && ends.size() + 1 == begins.size();
    for (std::size_t i = 0; inside && i < ends.size(); ++i) { inside = begins[i] <= ends[i] && ends[i] <= begins[i + 1]; }
    if (!inside) { throw py::value_error("members must lie between the offsets"); }
}

// How n rows are grouped, and which of them are anchors.
struct Grouped {
    std::span<const std::int32_t> order;
    std::span<const std::int64_t> offsets, members;
    std::span<const std::uint8_t> is_anchor;
};

inline Grouped check_grouped(const Array<std::int32_t>& order, const Array<std::int64_t>& offsets,
                             const Array<std::int64_t>& members, const Array<std::uint8_t>& is_anchor, std::size_t n) {
    check_order(order, n);
    check_groups(offsets, members, n);
    if (is_anchor.ndim() != 1 || (is_anchor.size() != 0 && view(is_anchor).size() != n)) {
        throw py::value_error("is_anchor must be empty or say it of each of the embeddings");
    }
    return {view(order), view(offsets), view(members), view(is_anchor)};
}

inline void check_row_starts(const Array<std::int64_t>& row_starts, std::size_t n_rows, std::int64_t end) {
    if (row_starts.ndim() != 1 || !is_aligned(row_starts) || view(row_starts).size() != n_rows ||
        !std::ranges::all_of(view(row_starts), [end](auto start) { return 0 <= start && start <= end; })) {
        throw py::value_error("row_starts must hold a place for each of the embeddings");
    }
}

// What can be summed up without a list.
inline void check_hinge(const Grouped& grouped, const mining::Rule& rule, double margin, const Array<double>& weights) {
    if (!grouped.is_anchor.empty() || !std::ranges::equal(grouped.members, grouped.offsets.subspan(1))) {
        throw py::value_error("all rows must be anchors, and none a bank's");
    }
    if (!rule.band.relative || rule.pairs == mining::PairChoice::kModerate || rule.skip_hardest > 0.0 || !(margin > 0.0)) {
        throw py::value_error("the rule must have a relative band, no moderate pairs and nothing to skip");
    }
    if (weights.ndim() != 1 || !is_aligned(weights) || view(weights).size() != grouped.order.size()) {
        throw py::value_error("weights must hold one for each of the embeddings");
    }
}

template <class Words>
auto word_of(const Words& words, const std::string& name, const char* what) {
    const auto word = mining::of_name(words, name);
    if (!word) { throw py::value_error("no " + std::string(what) + " is called '" + name + "'"); }
    return *word;
}

inline mining::Weights weights_of(const py::tuple& parts) {
    if (parts.empty()) { return {}; }
    if (parts.size() != 6) { throw py::value_error("weights must be empty or have six parts"); }
    mining::Weights weights = {parts[0].cast<std::size_t>(), parts[1].cast<double>(), parts[2].cast<double>(),
                               parts[3].cast<double>(), parts[4].cast<std::vector<double>>(),
                               parts[5].cast<std::vector<double>>()};
    if (weights.edges.size() < 2 || weights.log_bounds.size() != weights.edges.size() + 1 ||
        !std::ranges::is_sorted(weights.edges)) {
        throw py::value_error("weights must have rising edges, and one bound more");
    }
    return weights;
}

inline mining::Rule make_rule(const std::string& pairs, std::size_t n_positives, double max_d_ap, double quantile,
                              bool relative, double low, bool low_is_open, double high, double reach, bool root,
                              double skip_hardest, const std::string& pick, std::size_t n_negatives,
                              const std::string& if_empty, const py::tuple& weights) {
    mining::Rule rule = {
        {relative, low, low_is_open, high, reach, root},
        word_of(mining::kPairChoices, pairs, "choice of pairs"),
        n_positives,
        max_d_ap,
        quantile,
        skip_hardest,
        word_of(mining::kPicks, pick, "pick"),
        n_negatives,
        word_of(mining::kIfEmpty, if_empty, "fallback"),
        weights_of(weights),
    };
    if (n_negatives == 0 || !(quantile > 0.0) || !(quantile <= 1.0) || !(skip_hardest >= 0.0) || !(skip_hardest < 1.0)) {
        throw py::value_error("a rule's numbers must be in range");
    }
    if (rule.pick == mining::Pick::kWeighted && rule.weights.edges.empty()) {
        throw py::value_error("a weighted pick needs weights");
    }
    return rule;
}

// What can be mined: not every candidate.
inline void check_picks(const mining::Rule& rule) {
    if (rule.pick == mining::Pick::kEvery) { throw py::value_error("every candidate is listed, not mined"); }
}

template <class... Extra>
void define_rule(py::module_& module, const Extra&... extra) {
    py::class_<mining::Rule>(module, "Rule", "What to mine, all words and numbers of it.", extra...)
        .def(py::init(&make_rule), py::kw_only(), py::arg("pairs"), py::arg("n_positives"), py::arg("max_d_ap"),
             py::arg("quantile"), py::arg("relative"), py::arg("low"), py::arg("low_is_open"), py::arg("high"),
             py::arg("reach"), py::arg("root"), py::arg("skip_hardest"), py::arg("pick"), py::arg("n_negatives"),
             py::arg("if_empty"), py::arg("weights"));
}

// All that mines grouped rows begins with the same arguments.
template <class Function, class... More>
void define(py::module_& module, const char* name, Function function, const char* doc, const More&... more) {
    module.def(name, function, py::arg("workspace"), py::arg("embeddings"), py::arg("order").noconvert(),
               py::arg("offsets").noconvert(), py::arg("members").noconvert(), py::arg("bank_positives"),
               py::arg("is_anchor").noconvert(), py::arg("rule"), py::arg("seed"), py::arg("threads"), more..., doc);
}

}  // namespace bindings
