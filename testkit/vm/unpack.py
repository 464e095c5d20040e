"""Two steps of setup that a shell cannot do.

unpack.py vmlinux VMLINUZ OUT
    The ELF kernel inside a bzImage. QEMU starts it by PVH, which saves the guest the decompression.
unpack.py modules FROM TO INITRD "WANTED ..." "EARLY ..."
    Copies the wanted modules and what they depend on to the folder TO, and the early ones, numbered
    in the order in which they must be loaded, to the folder INITRD.
"""
import lzma
import os
import re
import struct
import subprocess
import sys


def vmlinux(source, target):
    with open(source, "rb") as file:
        image = file.read()
    # See the kernel's Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length.
    setup = (image[0x1F1] + 1) * 512
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[setup + offset : setup + offset + length]
    tools = {b"\x28\xb5": "zstd", b"\xfd7": "xz", b"\x1f\x8b": "gzip", b"\x02!": "lz4"}
    tool = [tools[payload[:2]], "-dc"]
    # The payload ends with four bytes that are not of the stream: the tool complains, and is done.
    elf = subprocess.run(tool, input=payload, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    if elf[:4] != b"\x7fELF":
        sys.exit(f"{source}: no ELF kernel inside")
    with open(target, "wb") as file:
        file.write(elf)


def modules(source, target, initrd, wanted, early):
    path = {}  # name -> its .ko or .ko.xz
    for top, _, files in os.walk(source):
        for file in files:
            if ".ko" in file:
                path[file.split(".ko")[0].replace("-", "_")] = os.path.join(top, file)
    content = {}

    def read(name):
        if name not in content:
            with open(path[name], "rb") as file:
                data = file.read()
            content[name] = lzma.decompress(data) if path[name].endswith(".xz") else data
        return content[name]

    def closure(names):  # dependencies first; what is built in has no file
        found = []

        def add(name):
            if name in found or name not in path:
                return
            depends = re.search(rb"\0depends=([^\0]*)\0", read(name))
            for other in depends.group(1).decode().split(",") if depends else ():
                add(other.replace("-", "_"))
            found.append(name)

        for name in names.split():
            add(name)
        return found

    def write(file_path, name):
        os.makedirs(os.path.dirname(file_path), exist_ok=True)
        with open(file_path, "wb") as file:
            file.write(read(name))

    for name in closure(wanted):
        write(f"{target}/{os.path.relpath(path[name], source).split('.ko')[0]}.ko", name)
    for number, name in enumerate(closure(early)):
        write(f"{initrd}/{number:02}-{name}.ko", name)


if __name__ == "__main__":
    {"vmlinux": vmlinux, "modules": modules}[sys.argv[1]](*sys.argv[2:])
