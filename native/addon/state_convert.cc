#include "addon/state_convert.h"

#include <cstring>

#include "addon/convert.h"
#include "addon/environment.h"

namespace kvmsnap {

namespace {

template <typename T>
T to_struct(const Napi::Value& value, const char* name) {
  std::span<const uint8_t> bytes = to_bytes_view(value, name);
  if (bytes.size() != sizeof(T)) {
    throw Error("ERR_SNAPSHOT_FORMAT", std::string(name) + " has " + std::to_string(bytes.size()) +
                                           " bytes, not " + std::to_string(sizeof(T)));
  }
  T result;
  std::memcpy(&result, bytes.data(), sizeof result);
  return result;
}

VmState to_vm_state(const Napi::Object& vm) {
  VmState state;
  state.clock = to_struct<kvm_clock_data>(vm.Get("clock"), "state.vm.clock");
  if (!vm.Get("ioapic").IsUndefined()) {
    state.irqchip = IrqchipState{
        .pic_master = to_struct<kvm_irqchip>(vm.Get("pic_master"), "state.vm.pic_master"),
        .pic_slave = to_struct<kvm_irqchip>(vm.Get("pic_slave"), "state.vm.pic_slave"),
        .ioapic = to_struct<kvm_irqchip>(vm.Get("ioapic"), "state.vm.ioapic"),
        .pit2 = to_struct<kvm_pit_state2>(vm.Get("pit2"), "state.vm.pit2")};
  }
  return state;
}

VcpuState to_vcpu_state(const Napi::Object& vcpu) {
  VcpuState state;
  for (size_t i = 0; i < kVcpuSections; i++) {
    Napi::Value bytes = vcpu.Get(kVcpuSectionNames[i]);
    if (!bytes.IsUndefined()) state.sections[i] = to_bytes_copy(bytes, kVcpuSectionNames[i]);
  }
  state.tsc_khz = to_uint32(vcpu.Get("tsc_khz"), "tsc_khz");
  return state;
}

DeviceField to_field(const Napi::Value& value, const char* name) {
  if (value.IsTypedArray()) return to_bytes_copy(value, name);
  if (value.IsBigInt()) {
    bool lossless = false;
    int64_t number = value.As<Napi::BigInt>().Int64Value(&lossless);
    if (lossless) return number;
  } else if (value.IsNumber()) {
    double number = value.As<Napi::Number>().DoubleValue();
    if (number >= -9007199254740992.0 && number <= 9007199254740992.0) {
      return static_cast<int64_t>(number);
    }
  }
  throw Error("ERR_SNAPSHOT_FORMAT",
              std::string("device field ") + name + " is neither a 64-bit integer nor bytes");
}

DeviceStates to_device_states(const Napi::Object& devices) {
  DeviceStates states;
  Napi::Array names = devices.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); i++) {
    std::string name = names.Get(i).ToString();
    Napi::Object fields = to_object(devices.Get(name), "a device's state");
    Napi::Array keys = fields.GetPropertyNames();
    DeviceFields& state = states[name];
    for (uint32_t k = 0; k < keys.Length(); k++) {
      std::string key = keys.Get(k).ToString();
      state[key] = to_field(fields.Get(key), key.c_str());
    }
  }
  return states;
}

DeviceChoice to_devices(const Napi::Object& devices) {
  uint32_t exit_port = to_uint32(devices.Get("exitPort"), "exitPort");
  if (exit_port > 0xFFFF) throw Error("ERR_INVALID_ARGUMENT", "exitPort must be a port");
  return {.serial = to_bool(devices.Get("serial"), "serial"),
          .i8042 = to_bool(devices.Get("i8042"), "i8042"),
          .debug_port = to_bool(devices.Get("debugPort"), "debugPort"),
          .exit_port = static_cast<uint16_t>(exit_port),
          .cmos = to_bool(devices.Get("cmos"), "cmos"),
          .acpi_power = to_bool(devices.Get("acpiPower"), "acpiPower")};
}

}  // namespace

RegionSpec to_region(const Napi::Value& value) {
  Napi::Object region = to_object(value, "a region");
  return {.slot = to_uint32(region.Get("slot"), "slot"),
          .gpa = to_address(region.Get("gpa"), "gpa"),
          .size = to_uint64(region.Get("size"), "size"),
          .flags = to_uint32(region.Get("flags"), "flags")};
}

MachineConfig to_config(const Napi::Value& value) {
  Napi::Object object = to_object(value, "the configuration");
  MachineConfig config;
  Napi::Array regions = to_array(object.Get("regions"), "regions");
  for (uint32_t i = 0; i < regions.Length(); i++) {
    config.regions.push_back(to_region(regions.Get(i)));
  }
  config.irqchip = to_bool(object.Get("irqchip"), "irqchip");
  config.manual_dirty_log = to_bool(object.Get("manualDirtyLog"), "manualDirtyLog");
  Napi::Value dirty_ring = object.Get("dirtyRing");
  if (!dirty_ring.IsUndefined()) config.dirty_ring = to_uint32(dirty_ring, "dirtyRing");
  config.devices = to_devices(to_object(object.Get("devices"), "devices"));
  Napi::Array cpuid = to_array(object.Get("cpuid"), "cpuid");
  for (uint32_t i = 0; i < cpuid.Length(); i++) {
    config.cpuid.push_back(to_bytes_copy(cpuid.Get(i), "cpuid"));
  }
  if (!object.Get("state").IsUndefined()) {
    config.state = std::make_shared<const MachineState>(to_state(object.Get("state")));
  }
  return config;
}

ClockPolicy to_clock_policy(const Napi::Value& value) {
  if (value.IsUndefined()) return ClockPolicy::Keep;
  std::string name = value.ToString();
  if (name == "keep") return ClockPolicy::Keep;
  if (name == "host") return ClockPolicy::Host;
  throw Error("ERR_INVALID_ARGUMENT", "a clock is kept or the host's: `keep` or `host`");
}

MachineState to_state(const Napi::Value& value) {
  Napi::Object object = to_object(value, "state");
  MachineState state;
  state.vm = to_vm_state(to_object(object.Get("vm"), "state.vm"));
  Napi::Array vcpus = to_array(object.Get("vcpus"), "state.vcpus");
  for (uint32_t i = 0; i < vcpus.Length(); i++) {
    state.vcpus.push_back(to_vcpu_state(to_object(vcpus.Get(i), "state.vcpus")));
  }
  state.devices = to_device_states(to_object(object.Get("devices"), "state.devices"));
  if (!object.Get("stopped").IsUndefined()) {
    Napi::Object stopped = to_object(object.Get("stopped"), "state.stopped");
    state.stopped.emplace().reason = stopped.Get("reason").ToString();
    Napi::Value code = stopped.Get("code");
    if (!code.IsUndefined()) state.stopped->code = to_uint32(code, "state.stopped.code");
  }
  return state;
}

Napi::Value from_stopped(Napi::Env env, const StoppedState& stopped) {
  Napi::Object object = Napi::Object::New(env);
  object["reason"] = stopped.reason;
  if (stopped.code) object["code"] = *stopped.code;
  return object;
}

Napi::Value from_state(Napi::Env env, const MachineState& state) {
  Napi::Object vm = Napi::Object::New(env);
  if (state.vm.irqchip) {
    vm["pic_master"] = from_struct(env, state.vm.irqchip->pic_master);
    vm["pic_slave"] = from_struct(env, state.vm.irqchip->pic_slave);
    vm["ioapic"] = from_struct(env, state.vm.irqchip->ioapic);
    vm["pit2"] = from_struct(env, state.vm.irqchip->pit2);
  }
  vm["clock"] = from_struct(env, state.vm.clock);

  Napi::Array vcpus = Napi::Array::New(env, state.vcpus.size());
  for (uint32_t i = 0; i < state.vcpus.size(); i++) {
    Napi::Object vcpu = Napi::Object::New(env);
    for (size_t k = 0; k < kVcpuSections; k++) {
      const std::vector<uint8_t>& bytes = state.vcpus[i].sections[k];
      if (!bytes.empty()) vcpu[kVcpuSectionNames[k]] = from_bytes(env, bytes);
    }
    vcpu["tsc_khz"] = state.vcpus[i].tsc_khz;
    vcpus[i] = vcpu;
  }

  Napi::Object devices = Napi::Object::New(env);
  for (const auto& [name, fields] : state.devices) {
    Napi::Object device = Napi::Object::New(env);
    for (const auto& [key, field] : fields) {
      if (const auto* number = std::get_if<int64_t>(&field)) {
        // As a snapshot file carries them: what needs more than 32 bits is a bigint.
        bool small = *number >= -int64_t{UINT32_MAX} && *number <= int64_t{UINT32_MAX};
        device[key] = small ? Napi::Value(Napi::Number::New(env, static_cast<double>(*number)))
                            : Napi::BigInt::New(env, *number);
      } else {
        device[key] = from_bytes(env, std::get<std::vector<uint8_t>>(field));
      }
    }
    devices[name] = device;
  }

  Napi::Object object = Napi::Object::New(env);
  object["vm"] = vm;
  object["vcpus"] = vcpus;
  object["devices"] = devices;
  if (state.stopped) object["stopped"] = from_stopped(env, *state.stopped);
  return object;
}

Napi::Value from_regions(Napi::Env env, const std::vector<RegionSpec>& regions) {
  Napi::Array array = Napi::Array::New(env, regions.size());
  for (uint32_t i = 0; i < regions.size(); i++) {
    Napi::Object region = Napi::Object::New(env);
    region["slot"] = regions[i].slot;
    region["gpa"] = from_address(env, regions[i].gpa);
    region["size"] = static_cast<double>(regions[i].size);
    region["flags"] = regions[i].flags;
    array[i] = region;
  }
  return array;
}

Napi::Value from_exit(Napi::Env env, const OwnedExit& owned) {
  Napi::Object object = Napi::Object::New(env);
  if (const auto* io = std::get_if<IoExit>(&owned.exit)) {
    object["kind"] = "io";
    object["direction"] = io->out ? "out" : "in";
    object["port"] = io->port;
    object["size"] = io->size;
    object["count"] = io->count;
    object["data"] = from_bytes(env, owned.data);
  } else if (const auto* mmio = std::get_if<MmioExit>(&owned.exit)) {
    object["kind"] = "mmio";
    object["write"] = mmio->write;
    object["gpa"] = from_address(env, mmio->gpa);
    object["size"] = static_cast<double>(owned.data.size());
    object["data"] = from_bytes(env, owned.data);
  } else if (std::holds_alternative<HaltExit>(owned.exit)) {
    object["kind"] = "hlt";
  } else if (const auto* debug = std::get_if<DebugExit>(&owned.exit)) {
    object["kind"] = "debug";
    object["exception"] = debug->exception;
    object["pc"] = from_address(env, debug->pc);
    object["dr6"] = from_address(env, debug->dr6);
    object["dr7"] = from_address(env, debug->dr7);
  } else if (std::holds_alternative<ShutdownExit>(owned.exit)) {
    object["kind"] = "shutdown";
  } else if (const auto* event = std::get_if<SystemEventExit>(&owned.exit)) {
    object["kind"] = "system-event";
    object["type"] = event->type;
  } else if (const auto* failure = std::get_if<FailEntryExit>(&owned.exit)) {
    object["kind"] = "fail-entry";
    object["reason"] = from_address(env, failure->reason);
    object["cpu"] = failure->cpu;
  } else if (const auto* error = std::get_if<InternalErrorExit>(&owned.exit)) {
    object["kind"] = "internal-error";
    object["suberror"] = error->suberror;
    auto data = Napi::BigUint64Array::New(env, error->data.size());
    for (size_t i = 0; i < error->data.size(); i++) data[i] = error->data[i];
    object["data"] = data;
  } else if (std::holds_alternative<InterruptedExit>(owned.exit)) {
    object["kind"] = "interrupted";
  } else if (std::holds_alternative<DirtyRingFullExit>(owned.exit)) {
    object["kind"] = "dirty-ring-full";
  } else if (const auto* error = std::get_if<ErrorExit>(&owned.exit)) {
    object["kind"] = "error";
    object["errno"] = error->error_number;
  } else if (const auto* unknown = std::get_if<UnsupportedExit>(&owned.exit)) {
    object["kind"] = "unsupported";
    object["reason"] = unknown->reason;
  }
  return object;
}

Napi::Value from_stop(Napi::Env env, const Stop& stop) {
  Napi::Object object = Napi::Object::New(env);
  object["reason"] = stop.reason;
  if (stop.code) object["code"] = *stop.code;
  if (stop.error) object["error"] = Environment::of(env).to_js(env, *stop.error);
  return object;
}

}  // namespace kvmsnap
