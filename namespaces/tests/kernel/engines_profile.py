"""The seccomp filters that a container engine makes of a profile, by the library that it makes them with.

    engines_profile.py PROFILE ARCHITECTURE [CAPABILITY,...]...

prints one line for each set of capabilities: the instructions of the program, each eight bytes in hexadecimal.
The rules of a profile are chosen as the engines do: by architecture and by the bounding set.
"""

import ctypes
import json
import os
import sys

SECCOMP = ctypes.CDLL("libseccomp.so.2")
SECCOMP.seccomp_init.restype = ctypes.c_void_p
ACTIONS = {
    "SCMP_ACT_ALLOW": lambda errno: 0x7FFF0000,
    "SCMP_ACT_ERRNO": lambda errno: 0x00050000 | (1 if errno is None else errno),
}
OPERATORS = {"SCMP_CMP_NE": 1, "SCMP_CMP_EQ": 4}
# What a profile calls them, the library's number, the name that rules use.
ARCHITECTURES = {"SCMP_ARCH_X86_64": (0xC000003E, "amd64"), "SCMP_ARCH_AARCH64": (0xC00000B7, "arm64")}
SUBARCHITECTURES = {"SCMP_ARCH_X86": 0x40000003, "SCMP_ARCH_X32": 0x4000003E, "SCMP_ARCH_ARM": 0x40000028}


class Argument(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def check(result, what):
    if result < 0:
        sys.exit(f"{what}: {os.strerror(-result)}")


def holds(rule, name, capabilities):
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if name in excludes.get("arches", []) or set(excludes.get("caps", [])) & capabilities:
        return False
    if includes.get("arches") and name not in includes["arches"]:
        return False
    return set(includes.get("caps", [])) <= capabilities


def program(profile, architecture, capabilities):
    number, name = ARCHITECTURES[architecture]
    default = ACTIONS[profile["defaultAction"]](profile.get("defaultErrnoRet"))
    context = ctypes.c_void_p(SECCOMP.seccomp_init(ctypes.c_uint32(default)))
    for entry in profile["archMap"]:
        if entry["architecture"] == architecture:
            for other in entry["subArchitectures"]:
                check(SECCOMP.seccomp_arch_add(context, ctypes.c_uint32(SUBARCHITECTURES[other])), other)
    for rule in profile["syscalls"]:
        if not holds(rule, name, capabilities):
            continue
        action = ACTIONS[rule["action"]](rule.get("errnoRet"))
        if action == default:
            continue
        arguments = [
            Argument(one["index"], OPERATORS[one["op"]], one["value"], one["valueTwo"]) for one in rule.get("args") or []
        ]
        array = (Argument * max(len(arguments), 1))(*arguments)
        for call in rule["names"]:
            number = SECCOMP.seccomp_syscall_resolve_name(call.encode())
            # A name that the library does not know is passed over.
            if number != -1:
                result = SECCOMP.seccomp_rule_add_array(
                    context, ctypes.c_uint32(action), ctypes.c_int(number), ctypes.c_uint(len(arguments)), array
                )
                check(result, call)
    fd = os.memfd_create("program")
    check(SECCOMP.seccomp_export_bpf(context, fd), "export")
    SECCOMP.seccomp_release(context)
    os.lseek(fd, 0, os.SEEK_SET)
    with os.fdopen(fd, "rb") as file:
        return file.read()


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        profile = json.load(file)
    for capabilities in sys.argv[3:]:
        print(program(profile, sys.argv[2], set(filter(None, capabilities.split(",")))).hex())


main()
