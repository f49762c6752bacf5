// What c10d's header asks of gloo, which torch's wheel lacks: declarations only, after gloo
// (https://github.com/facebookincubator/gloo, BSD-3). The shim holds such objects by pointers that
// c10d gave it and calls no virtual function of them, so that no layout stands here.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#define GLOO_API

namespace gloo {

namespace transport {
class Device;
class UnboundBuffer;
} // namespace transport

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
  void closeConnections();
};

namespace rendezvous {
class Store {
 public:
  virtual ~Store();
  virtual void set(const std::string& key, const std::vector<char>& data) = 0;
  virtual std::vector<char> get(const std::string& key) = 0;
  virtual void wait(const std::vector<std::string>& keys) = 0;
  virtual void wait(
      const std::vector<std::string>& keys,
      const std::chrono::milliseconds& timeout) = 0;
};
} // namespace rendezvous

} // namespace gloo
