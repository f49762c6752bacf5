// What the shim's functions have in common: they give 0, or 1 and why.
#pragma once

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <string>

namespace catlip {

// Where a call says why it failed.
struct Reason {
  char* text;
  size_t bytes;
};

// Runs `body`; an exception becomes 1 and its first line.
template <typename Body>
int guarded(Reason reason, Body body) noexcept {
  std::string what;
  try {
    body();
    return 0;
  } catch (const c10::Error& error) {
    what = error.what_without_backtrace();
  } catch (const std::exception& error) {
    what = error.what();
  } catch (...) {
    what = "an exception that is none of the standard ones";
  }
  what = what.substr(0, what.find('\n'));
  if (reason.bytes > 0) {
    const size_t length = std::min(what.size(), reason.bytes - 1);
    std::memcpy(reason.text, what.data(), length);
    reason.text[length] = '\0';
  }
  return 1;
}

} // namespace catlip
