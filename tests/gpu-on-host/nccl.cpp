// NCCL between the GPUs of one process: what `tlr::parallel::Nccl` needs of it, as strict as NCCL
// may be. No call blocks. A call is through only after it was asked several times, and only then
// does the stream know of the operation. The operations of one communicator happen one after the
// other, and so do those of one stream. None is done before the other rank has its counterpart, and
// the bytes are copied at the last moment.
#include "gpu.h"
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <vector>

enum NcclResult {
    SUCCESS = 0,
    CUDA_FAILED = 1,
    INVALID_ARGUMENT = 4,
    INVALID_USAGE = 5,
    IN_PROGRESS = 7,
};

namespace {
// How often a call, or an operation, is asked for before it is through.
const int ASKED = 3;

struct Communicator;

struct Operation {
    bool sends;
    uint64_t address;
    size_t len;
    int peer;
    void *stream;
    Communicator *of;
    // Its counterpart, once both are the next ones, and how often one of them is still asked for.
    Operation *other = nullptr;
    int left = ASKED;
};

// All ranks with the same identity.
struct Group {
    std::vector<Communicator *> ranks;
    std::set<std::pair<int, int>> connected;
    int joined = 0;
};

struct Communicator {
    std::shared_ptr<Group> group;
    int rank;
    void *context;
    NcclResult failure = SUCCESS;
    int left = ASKED;
    bool is_made = false;
    // A call that is not through, and the operations behind it.
    std::unique_ptr<Operation> call;
    std::deque<std::unique_ptr<Operation>> operations;
};

struct Id {
    char text[128];
};

struct Config {
    size_t size;
    unsigned magic, version;
    int blocking, cluster, least_blocks, most_blocks;
};

// Operations may be asked for while something else is done on a GPU.
std::recursive_mutex nccl;
std::map<std::string, std::weak_ptr<Group>> groups;
std::map<void *, std::deque<Operation *>> streams;
std::set<Communicator *> communicators;
thread_local std::string last_words;

NcclResult refuse(NcclResult error, const std::string &words) {
    last_words = words;
    fail(INVALID_VALUE, "NCCL: %s", words.c_str());
    return error;
}

bool is_next(const Operation *of) {
    return of->of->operations.front().get() == of && streams[of->stream].front() == of;
}

// The other rank's operation, if it has come to that one.
Operation *counterpart(const Operation *of) {
    Communicator *there = of->of->group->ranks[of->peer];
    if (!there || there->operations.empty()) return nullptr;
    Operation *other = there->operations.front().get();
    return other->peer == of->of->rank && other->sends != of->sends && is_next(other) ? other
                                                                                       : nullptr;
}

void leave(Operation *of) {
    auto &stream = streams[of->stream];
    stream.erase(std::find(stream.begin(), stream.end(), of));
    if (stream.empty()) streams.erase(of->stream);
    if (of->other) of->other->other = nullptr;
    auto &operations = of->of->operations;
    for (auto at = operations.begin(); at != operations.end(); ++at)
        if (at->get() == of) {
            operations.erase(at);
            return;
        }
}

// Moves on what a stream comes to next.
void move_on(void *stream) {
    const auto found = streams.find(stream);
    if (found == streams.end()) return;
    Operation *own = found->second.front();
    if (!is_next(own)) return;
    if (!own->other) {
        own->other = counterpart(own);
        if (own->other) own->other->other = own;
        return;
    }
    if (--own->left > 0) return;
    Operation *from = own->sends ? own : own->other, *to = own->sends ? own->other : own;
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    if (from->len != to->len || !is_allocated(from->address, from->len) ||
        !is_allocated(to->address, to->len)) {
        refuse(INVALID_USAGE, "what is sent is not as long as what is received, or was freed");
        from->of->failure = to->of->failure = INVALID_USAGE;
        return;
    }
    memcpy((void *)to->address, (const void *)from->address, from->len);
    leave(from);
    leave(to);
}

// Two GPUs connect when each has something for the other one.
bool connected(Communicator *of) {
    const int peer = of->call->peer;
    Communicator *there = of->group->ranks[peer];
    const auto pair = std::minmax(of->rank, peer);
    if (there && there->call && there->call->peer == of->rank &&
        there->call->sends != of->call->sends)
        of->group->connected.insert(pair);
    return of->group->connected.count(pair);
}

NcclResult begin(bool sends, uint64_t address, size_t len, int type, int peer, Communicator *of,
                 void *stream) {
    const std::lock_guard<std::recursive_mutex> lock(nccl);
    if (!communicators.count(of)) return refuse(INVALID_ARGUMENT, "there is no such communicator");
    if (!of->is_made || of->call) return refuse(INVALID_USAGE, "the last call is not through");
    void *context = nullptr;
    if (in_context() || (cuCtxGetCurrent(&context), context != of->context))
        return refuse(CUDA_FAILED, "the thread is bound to another GPU");
    const int size = of->group->ranks.size();
    if (type > 1 || len == 0 || peer < 0 || peer >= size || peer == of->rank)
        return refuse(INVALID_ARGUMENT, "only bytes, some of them, to or from another rank");
    {
        const std::lock_guard<std::mutex> lock(one_at_a_time);
        if (!is_allocated(address, len) || context_of(address) != of->context)
            return refuse(INVALID_ARGUMENT, "these bytes are " + describe(address));
    }
    of->call.reset(new Operation{sends, address, len, peer, stream, of});
    of->left = ASKED;
    return IN_PROGRESS;
}
}  // namespace

bool is_busy(void *stream) {
    const std::lock_guard<std::recursive_mutex> lock(nccl);
    move_on(stream);
    return streams.count(stream);
}

bool waits_for_others() {
    const std::lock_guard<std::recursive_mutex> lock(nccl);
    void *context = nullptr;
    cuCtxGetCurrent(&context);
    for (const auto *of : communicators)
        if (of->context == context && (of->call || !of->operations.empty())) return true;
    return false;
}

extern "C" {
int ncclGetVersion(int *version) {
    *version = 21801;
    return SUCCESS;
}

int ncclGetUniqueId(Id *id) {
    static int count;
    const std::lock_guard<std::recursive_mutex> lock(nccl);
    memset(id->text, 0, sizeof id->text);
    snprintf(id->text, sizeof id->text, "communicator %d", ++count);
    return SUCCESS;
}

int ncclCommInitRankConfig(Communicator **made, int size, Id id, int rank, Config *config) {
    const std::lock_guard<std::recursive_mutex> lock(nccl);
    if (config->size != 48 || config->magic != 0xcafebeef || config->version < 21700)
        return refuse(INVALID_ARGUMENT, "the settings are not filled as NCCL fills them");
    if (config->blocking != 0 || config->least_blocks != 1 || config->most_blocks != 1)
        return refuse(INVALID_ARGUMENT, "calls may not block, nor take more than one block");
    if (in_context()) return refuse(CUDA_FAILED, "the thread is bound to no GPU");
    auto group = groups[id.text].lock();
    if (!group) groups[id.text] = group = std::make_shared<Group>();
    group->ranks.resize(size);
    if (rank < 0 || rank >= size || group->ranks[rank])
        return refuse(INVALID_ARGUMENT, "two ranks have the same number");
    auto *own = new Communicator;
    own->group = group;
    own->rank = rank;
    cuCtxGetCurrent(&own->context);
    for (auto *other : group->ranks)
        if (other && other->context == own->context) {
            other->failure = own->failure = INVALID_USAGE;
            refuse(INVALID_USAGE, "two ranks have the same GPU");
        }
    group->ranks[rank] = own;
    group->joined++;
    communicators.insert(own);
    *made = own;
    return IN_PROGRESS;
}

int ncclCommGetAsyncError(Communicator *of, int *state) {
    const std::lock_guard<std::recursive_mutex> lock(nccl);
    if (!communicators.count(of)) return refuse(INVALID_ARGUMENT, "there is no such communicator");
    *state = of->failure;
    if (of->failure) return SUCCESS;
    *state = IN_PROGRESS;
    if (!of->is_made) {
        if (of->group->joined < (int)of->group->ranks.size() || --of->left > 0) return SUCCESS;
        of->is_made = true;
    }
    if (of->call) {
        if (!connected(of) || --of->left > 0) return SUCCESS;
        streams[of->call->stream].push_back(of->call.get());
        of->operations.push_back(std::move(of->call));
    }
    *state = SUCCESS;
    return SUCCESS;
}

int ncclSend(uint64_t from, size_t len, int type, int peer, Communicator *of, void *stream) {
    return begin(true, from, len, type, peer, of, stream);
}

int ncclRecv(uint64_t to, size_t len, int type, int peer, Communicator *of, void *stream) {
    return begin(false, to, len, type, peer, of, stream);
}

int ncclCommAbort(Communicator *of) {
    const std::lock_guard<std::recursive_mutex> lock(nccl);
    if (!communicators.erase(of)) return refuse(INVALID_ARGUMENT, "it has ended before");
    while (!of->operations.empty()) leave(of->operations.back().get());
    of->group->ranks[of->rank] = nullptr;
    delete of;
    return SUCCESS;
}

const char *ncclGetLastError(Communicator *) { return last_words.c_str(); }
}
