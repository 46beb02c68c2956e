#pragma once

#include <type_traits>

namespace kvmsnap {

/// The debug port has no register that remembers anything.
struct DebugPortState {
  bool operator==(const DebugPortState&) const = default;
};

template <typename State, typename Visit>
requires std::is_same_v<std::remove_const_t<State>, DebugPortState>
void for_each_field(State&, Visit&&) {}

}  // namespace kvmsnap
