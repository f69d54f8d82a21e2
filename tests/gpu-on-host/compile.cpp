// Kernels, compiled by the host's compiler: run-time compilation (NVRTC), whose "PTX" is the
// source without includes and macros, and the libraries that modules become.
#include "gpu.h"
#include <cctype>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fstream>
#include <set>
#include <sstream>
#include <sys/stat.h>
#include <unistd.h>

namespace {
// The folder of this library. What it needs lies in folders beside it.
std::string home() {
    Dl_info here;
    if (!dladdr((void *)home, &here)) abort();
    char path[PATH_MAX];
    if (!realpath(here.dli_fname, path)) abort();
    const std::string file = path;
    return file.substr(0, file.rfind('/')) + "/..";
}

std::string quoted(const std::string &word) { return "'" + word + "'"; }

std::string read(const std::string &path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

// A name that is the same for the same text.
std::string name_of(const std::string &text) {
    uint64_t hash = 14695981039346656037u;
    for (const unsigned char c : text) hash = (hash ^ c) * 1099511628211u;
    char name[17];
    snprintf(name, sizeof name, "%016llx", (unsigned long long)hash);
    return name;
}

const char *compiler() {
    const char *chosen = getenv("CXX");
    return chosen ? chosen : "c++";
}

// Of a GPU, one may hold up to 48 KiB in shared memory.
const std::string OPTIONS =
    " -x c++ -std=c++17 -O1 -fPIC -shared -ffp-contract=off -Wlarger-than=49152"
    " -Werror=larger-than=49152 -D__global__=GPU_HIDDEN ";

// The names of the kernels: each is what stands before the first parenthesis behind
// `__global__ void`.
std::set<std::string> kernels_of(const std::string &text) {
    static const std::string MARK = "__global__", VOID = "void";
    const auto in_name = [](char c) { return isalnum((unsigned char)c) || c == '_'; };
    std::set<std::string> names;
    for (size_t at = text.find(MARK); at != std::string::npos; at = text.find(MARK, at + 1)) {
        // A template has no name that it could be loaded by.
        const size_t behind = text.find_last_of(";}", at), of = text.rfind("template", at);
        if (of != std::string::npos && (behind == std::string::npos || of > behind)) continue;
        size_t begin = text.find(VOID, at);
        if (begin == std::string::npos) break;
        begin = text.find_first_not_of(" \t\r\n", begin + VOID.size());
        size_t end = begin;
        while (end < text.size() && in_name(text[end])) end++;
        names.insert(text.substr(begin, end - begin));
    }
    return names;
}

// The text, for each of its kernels a function that calls it, and one for the calling thread to
// have shared memory.
std::string with_calls(const std::string &text) {
    std::string all = text + "\nstatic thread_local volatile char gpu_touched;\n"
                             "extern \"C\" void gpu_touch() { gpu_touched = 1; }\n";
    for (const auto &name : kernels_of(text))
        all += "extern \"C\" void gpu_call_" + name + "(void **arguments) { gpu_unpack(" + name +
               ", arguments); }\n";
    return all;
}

struct Program {
    std::string source, text, log;
};
}  // namespace

std::string preprocessed(const std::string &source, const std::string &options, std::string &log) {
    const auto cache = home() + "/kernels/";
    mkdir(cache.c_str(), 0777);
    const auto at = cache + name_of(source + options) + "." + std::to_string(getpid());
    std::ofstream(at + ".cu") << source;
    const auto command = quoted(home() + "/bin/nvcc") + " --ptx -o " + quoted(at + ".ptx") +
                         options + " " + quoted(at + ".cu") + " 2>" + quoted(at + ".log");
    const bool done = system(command.c_str()) == 0;
    const auto text = read(at + ".ptx");
    log = read(at + ".log");
    for (const char *end : {".cu", ".ptx", ".log"}) unlink((at + end).c_str());
    return done ? text : "";
}

std::string library(const std::string &text, std::string &log, const std::string &options) {
    const auto cache = home() + "/kernels/";
    mkdir(cache.c_str(), 0777);
    const char *more = getenv("GPU_ON_HOST_CXXFLAGS");
    const auto given = (more ? more : "") + options;
    const auto command = compiler() + OPTIONS + given + " -nostdinc -include " +
                         quoted(home() + "/include/device.h");
    const auto made = cache + name_of(command + text) + ".so";
    if (access(made.c_str(), R_OK) == 0) return made;
    const auto at = made + "." + std::to_string(getpid());
    std::ofstream(at + ".cpp") << with_calls(text);
    const auto whole = command + " -o " + quoted(at) + " " + quoted(at + ".cpp") + " 2>" +
                       quoted(at + ".log");
    const bool done = system(whole.c_str()) == 0 && rename(at.c_str(), made.c_str()) == 0;
    log = read(at + ".log");
    unlink((at + ".cpp").c_str());
    unlink((at + ".log").c_str());
    return done ? made : "";
}

// The functions of a text that lack `__device__`, in lines. NVRTC would refuse a call of them.
// Without optimisation, each that is called is there.
static std::string not_of_device(const std::string &text) {
    std::string log;
    const auto made = library(text, log, " -O0");
    const auto at = made + "." + std::to_string(getpid());
    const auto command = "nm -DC --defined-only " + quoted(made) + " | grep -v ' T gpu_' >" +
                         quoted(at);
    const bool some = !made.empty() && system(command.c_str()) == 0;
    const auto names = read(at);
    unlink(at.c_str());
    return some ? names : "";
}

// NVRTC's error codes.
enum Nvrtc { DONE = 0, INVALID_PROGRAM = 4, COMPILATION = 6 };

extern "C" {
Nvrtc nvrtcCreateProgram(Program **made, const char *source, const char *, int headers,
                         const char *const *, const char *const *) {
    if (headers) return INVALID_PROGRAM;
    *made = new Program{source, "", ""};
    return DONE;
}
Nvrtc nvrtcDestroyProgram(Program **program) {
    delete *program;
    *program = nullptr;
    return DONE;
}
Nvrtc nvrtcCompileProgram(Program *program, int count, const char *const *options) {
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    std::string given;
    for (int i = 0; i < count; i++) {
        static const std::string INCLUDE = "--include-path=";
        std::string option = options[i];
        if (option.rfind(INCLUDE, 0) == 0) option = "-I" + option.substr(INCLUDE.size());
        if (option.rfind("-I", 0) == 0 || option.rfind("-D", 0) == 0) given += " " + quoted(option);
    }
    program->text = preprocessed(program->source, given, program->log);
    if (program->text.empty() || library(program->text, program->log).empty()) return COMPILATION;
    const auto wrong = not_of_device(program->text);
    if (wrong.empty()) return DONE;
    program->log = "these lack __device__:\n" + wrong;
    return COMPILATION;
}
Nvrtc nvrtcGetPTXSize(Program *program, size_t *size) {
    *size = program->text.size() + 1;
    return DONE;
}
Nvrtc nvrtcGetPTX(Program *program, char *to) {
    memcpy(to, program->text.c_str(), program->text.size() + 1);
    return DONE;
}
Nvrtc nvrtcGetProgramLogSize(Program *program, size_t *size) {
    *size = program->log.size() + 1;
    return DONE;
}
Nvrtc nvrtcGetProgramLog(Program *program, char *to) {
    memcpy(to, program->log.c_str(), program->log.size() + 1);
    return DONE;
}
}
