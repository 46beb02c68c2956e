#pragma once

#include <type_traits>

namespace kvmsnap {

/// The exit port has no register that remembers anything.
struct ExitPortState {
  bool operator==(const ExitPortState&) const = default;
};

template <typename State, typename Visit>
requires std::is_same_v<std::remove_const_t<State>, ExitPortState>
void for_each_field(State&, Visit&&) {}

}  // namespace kvmsnap
