// The oracle's words and numbers as the miner takes them.
#pragma once

#include "../mining/draws.hpp"
#include "../mining/rule.hpp"
#include "oracle.hpp"

namespace native {

inline constexpr oracle::Tuning kTuning = {mining::kDraws,         mining::kMoreDraws,    mining::kRankDraw,   mining::kPilotTrials,
                                    mining::kPilotHits,     mining::kSampleFromRows, mining::kLeastSampled,
                                    mining::kRowsPerSampled, mining::kSampleHits,   mining::kDrawsPerSampled};

inline mining::Rule rule_of(const oracle::Rule& rule) {
    return {
        {rule.band.relative, rule.band.low, rule.band.low_is_open, rule.band.high, rule.reach, rule.band.root},
        *mining::of_name(mining::kPairChoices, rule.pairs),
        rule.n_positives,
        rule.max_d_ap,
        rule.quantile,
        rule.skip_hardest,
        *mining::of_name(mining::kPicks, rule.pick),
        rule.n_negatives,
        *mining::of_name(mining::kIfEmpty, rule.if_empty),
        {rule.weights.size, rule.weights.unit, rule.weights.lowest, rule.weights.highest, rule.weights.edges,
         rule.weights.log_bounds},
    };
}

}  // namespace native
