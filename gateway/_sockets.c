/* Accepted connections: non-blocking sockets with one system call for each step.
 *
 * Optional: without this module socket.socket does the same.  It has the methods
 * of that type which the server uses, with the same meaning, and two that spare an
 * ioctl(2) by way of fcntl.
 *
 * A call that cannot wait, and receives little, keeps the interpreter's lock: to give
 * it up and take it again costs as much as the call, and where threads compute it
 * would be had again after 5 ms only.  Sending gives it up: who has answered lets
 * the others have their turn before it begins the next request.
 *
 * And a lock for ``with``, of which a connection has one: threading.Lock parses
 * arguments each time, and there are none.
 */

#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <termios.h>
#include <unistd.h>

/* Bytes that are received without giving up the lock. */
#define SMALL 65536
#define MOST_PIECES 1024 /* IOV_MAX of Linux */
#define FEW_PIECES 64    /* room for more is no thread's stack's: threading.stack_size() */

struct socket {
    PyObject_HEAD
    int number; /* -1: closed */
};

static PyTypeObject Socket;

static int
number_of(PyObject *self)
{
    return ((struct socket *)self)->number;
}

/* A whole number among the arguments of a call; ``other`` where there are fewer. */
static int
argument(PyObject *const *arguments, Py_ssize_t count, Py_ssize_t at, long other, long *value)
{
    *value = other;
    if (at >= count)
        return 1;
    *value = PyLong_AsLong(arguments[at]);
    return *value != -1 || !PyErr_Occurred();
}

static int
takes(const char *name, Py_ssize_t count, Py_ssize_t least, Py_ssize_t most)
{
    if (count >= least && count <= most)
        return 1;
    PyErr_Format(PyExc_TypeError, "%s() takes %zd to %zd arguments", name, least, most);
    return 0;
}

static PyObject *
outcome(int failed)
{
    if (failed)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static ssize_t
receive(int number, void *to, size_t size, int flags)
{
    ssize_t count;

    if (size <= SMALL)
        return recv(number, to, size, flags);
    Py_BEGIN_ALLOW_THREADS
    count = recv(number, to, size, flags);
    Py_END_ALLOW_THREADS
    return count;
}

static PyObject *
receive_much(int number, Py_ssize_t size, int flags)
{
    PyObject *data = PyBytes_FromStringAndSize(NULL, size);
    ssize_t count;

    if (data == NULL)
        return NULL;
    count = receive(number, PyBytes_AS_STRING(data), (size_t)size, flags);
    if (count < 0) {
        Py_DECREF(data);
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (count != size)
        _PyBytes_Resize(&data, count);
    return data;
}

static PyObject *
socket_recv(PyObject *self, PyObject *const *arguments, Py_ssize_t given)
{
    char small[SMALL / 4];
    long size, flags;
    ssize_t count;

    if (!takes("recv", given, 1, 2) || !argument(arguments, given, 0, 0, &size) ||
        !argument(arguments, given, 1, 0, &flags))
        return NULL;
    if (size < 0) {
        PyErr_SetString(PyExc_ValueError, "negative buffersize in recv");
        return NULL;
    }
    if ((size_t)size > sizeof small)
        return receive_much(number_of(self), size, (int)flags);
    count = recv(number_of(self), small, (size_t)size, (int)flags);
    if (count < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyBytes_FromStringAndSize(small, count);
}

static PyObject *
socket_recv_into(PyObject *self, PyObject *const *arguments, Py_ssize_t given)
{
    Py_buffer to;
    long size, flags;
    ssize_t count;

    if (!takes("recv_into", given, 1, 3) || !argument(arguments, given, 1, 0, &size) ||
        !argument(arguments, given, 2, 0, &flags) ||
        PyObject_GetBuffer(arguments[0], &to, PyBUF_WRITABLE) < 0)
        return NULL;
    if (size < 0 || size > to.len) {
        PyBuffer_Release(&to);
        PyErr_SetString(PyExc_ValueError, "the buffer has not so many bytes");
        return NULL;
    }
    count = receive(number_of(self), to.buf, (size_t)(size ? size : to.len), (int)flags);
    PyBuffer_Release(&to);
    return count < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromSsize_t(count);
}

static PyObject *
socket_send(PyObject *self, PyObject *const *arguments, Py_ssize_t given)
{
    Py_buffer data;
    long flags;
    ssize_t count;
    int number = number_of(self);

    if (!takes("send", given, 1, 2) || !argument(arguments, given, 1, 0, &flags) ||
        PyObject_GetBuffer(arguments[0], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    count = send(number, data.buf, (size_t)data.len, (int)flags);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    return count < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromSsize_t(count);
}

static PyObject *
send_viewed(int number, PyObject *pieces, Py_ssize_t count, int flags, Py_buffer *views,
            struct iovec *parts)
{
    struct msghdr message = {.msg_iov = parts};
    Py_ssize_t at;
    ssize_t sent = -1;

    for (at = 0; at < count; at++) {
        PyObject *piece = PySequence_Fast_GET_ITEM(pieces, at);

        if (PyObject_GetBuffer(piece, &views[at], PyBUF_SIMPLE) < 0)
            break;
        parts[at].iov_base = views[at].buf;
        parts[at].iov_len = (size_t)views[at].len;
    }
    message.msg_iovlen = (size_t)at;
    if (at == count) {
        Py_BEGIN_ALLOW_THREADS
        sent = sendmsg(number, &message, flags);
        Py_END_ALLOW_THREADS
    }
    while (at > 0)
        PyBuffer_Release(&views[--at]);
    if (sent >= 0)
        return PyLong_FromSsize_t(sent);
    return PyErr_Occurred() ? NULL : PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *
send_pieces(int number, PyObject *pieces, int flags)
{
    Py_buffer few_views[FEW_PIECES], *views = few_views;
    struct iovec few_parts[FEW_PIECES], *parts = few_parts;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(pieces);
    PyObject *sent = NULL;

    if (count > MOST_PIECES)
        count = MOST_PIECES; /* as of a full socket: the caller goes on with the rest */
    if (count > FEW_PIECES) {
        views = PyMem_New(Py_buffer, count);
        parts = PyMem_New(struct iovec, count);
    }
    if (views == NULL || parts == NULL)
        PyErr_NoMemory();
    else
        sent = send_viewed(number, pieces, count, flags, views, parts);
    if (count > FEW_PIECES) {
        PyMem_Free(views);
        PyMem_Free(parts);
    }
    return sent;
}

static PyObject *
socket_sendmsg(PyObject *self, PyObject *const *arguments, Py_ssize_t given)
{
    PyObject *pieces, *sent;
    long flags;

    /* As socket.sendmsg: pieces, ancillary data (none here), flags. */
    if (!takes("sendmsg", given, 1, 3) || !argument(arguments, given, 2, 0, &flags))
        return NULL;
    pieces = PySequence_Fast(arguments[0], "sendmsg() takes a sequence of pieces");
    if (pieces == NULL)
        return NULL;
    sent = send_pieces(number_of(self), pieces, (int)flags);
    Py_DECREF(pieces);
    return sent;
}

static PyObject *
socket_fileno(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    return PyLong_FromLong(number_of(self));
}

static PyObject *
socket_close(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    int number = number_of(self);

    ((struct socket *)self)->number = -1;
    /* What it says of a connection that the peer has reset is nobody's concern. */
    return outcome(number >= 0 && close(number) < 0 && errno != ECONNRESET);
}

static PyObject *
socket_shutdown(PyObject *self, PyObject *how)
{
    long value = PyLong_AsLong(how);

    if (value == -1 && PyErr_Occurred())
        return NULL;
    return outcome(shutdown(number_of(self), (int)value) < 0);
}

static PyObject *
socket_setsockopt(PyObject *self, PyObject *arguments)
{
    int level, name, flag;
    Py_buffer value;
    int failed;

    if (PyArg_ParseTuple(arguments, "iii:setsockopt", &level, &name, &flag))
        return outcome(setsockopt(number_of(self), level, name, &flag, sizeof flag) < 0);
    PyErr_Clear();
    if (!PyArg_ParseTuple(arguments, "iiy*:setsockopt", &level, &name, &value))
        return NULL;
    failed = setsockopt(number_of(self), level, name, value.buf, (socklen_t)value.len) < 0;
    PyBuffer_Release(&value);
    return outcome(failed);
}

static PyObject *
socket_getsockopt(PyObject *self, PyObject *arguments)
{
    char buffer[1024];
    int level, name, room = 0, flag = 0;
    socklen_t size;

    if (!PyArg_ParseTuple(arguments, "ii|i:getsockopt", &level, &name, &room))
        return NULL;
    if (room < 0 || (size_t)room > sizeof buffer) {
        PyErr_SetString(PyExc_ValueError, "getsockopt buflen out of range");
        return NULL;
    }
    size = room ? (socklen_t)room : sizeof flag;
    if (getsockopt(number_of(self), level, name, room ? (void *)buffer : (void *)&flag, &size) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return room ? PyBytes_FromStringAndSize(buffer, (Py_ssize_t)size) : PyLong_FromLong(flag);
}

/* As the module socket has it; peers of unix sockets are all the same: "". */
static PyObject *
address_of(const struct sockaddr_storage *from)
{
    char text[INET6_ADDRSTRLEN];

    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *four = (const struct sockaddr_in *)from;

        inet_ntop(AF_INET, &four->sin_addr, text, sizeof text);
        return Py_BuildValue("(si)", text, ntohs(four->sin_port));
    }
    if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)from;

        inet_ntop(AF_INET6, &six->sin6_addr, text, sizeof text);
        return Py_BuildValue("(siII)", text, ntohs(six->sin6_port), ntohl(six->sin6_flowinfo),
                             six->sin6_scope_id);
    }
    return PyUnicode_FromString("");
}

static PyObject *
socket_getsockname(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    struct sockaddr_storage own = {0};
    socklen_t size = sizeof own;

    if (getsockname(number_of(self), (struct sockaddr *)&own, &size) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return address_of(&own);
}

static PyObject *
count_of(PyObject *self, unsigned long what)
{
    int count = 0;

    if (ioctl(number_of(self), what, &count) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(count);
}

static PyObject *
socket_unread(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    return count_of(self, FIONREAD);
}

static PyObject *
socket_unsent(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    return count_of(self, TIOCOUTQ);
}

static void
socket_dealloc(PyObject *self)
{
    int number = number_of(self);

    if (number >= 0)
        close(number);
    PyObject_Free(self);
}

static PyMethodDef methods[] = {
    {"recv", (PyCFunction)(void (*)(void))socket_recv, METH_FASTCALL, NULL},
    {"recv_into", (PyCFunction)(void (*)(void))socket_recv_into, METH_FASTCALL, NULL},
    {"send", (PyCFunction)(void (*)(void))socket_send, METH_FASTCALL, NULL},
    {"sendmsg", (PyCFunction)(void (*)(void))socket_sendmsg, METH_FASTCALL, NULL},
    {"fileno", socket_fileno, METH_NOARGS, NULL},
    {"close", socket_close, METH_NOARGS, NULL},
    {"shutdown", socket_shutdown, METH_O, NULL},
    {"setsockopt", socket_setsockopt, METH_VARARGS, NULL},
    {"getsockopt", socket_getsockopt, METH_VARARGS, NULL},
    {"getsockname", socket_getsockname, METH_NOARGS, NULL},
    {"unread", socket_unread, METH_NOARGS, NULL},
    {"unsent", socket_unsent, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject Socket = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gateway._sockets.Socket",
    .tp_basicsize = sizeof(struct socket),
    .tp_dealloc = socket_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "A connection that was accepted; made by accept().",
    .tp_methods = methods,
};

struct lock {
    PyObject_HEAD
    PyThread_type_lock handle;
    int is_held;
};

static PyObject *
lock_new(PyTypeObject *type, PyObject *arguments, PyObject *named)
{
    struct lock *made;

    if (PyTuple_GET_SIZE(arguments) || (named != NULL && PyDict_GET_SIZE(named))) {
        PyErr_SetString(PyExc_TypeError, "Lock() takes no arguments");
        return NULL;
    }
    made = PyObject_New(struct lock, type);
    if (made == NULL)
        return NULL;
    made->is_held = 0;
    made->handle = PyThread_allocate_lock();
    if (made->handle == NULL) {
        Py_DECREF(made);
        return PyErr_NoMemory();
    }
    return (PyObject *)made;
}

static void
lock_dealloc(PyObject *self)
{
    struct lock *lock = (struct lock *)self;

    if (lock->handle != NULL) {
        if (lock->is_held)
            PyThread_release_lock(lock->handle);
        PyThread_free_lock(lock->handle);
    }
    PyObject_Free(self);
}

static PyObject *
lock_enter(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    struct lock *lock = (struct lock *)self;

    if (!PyThread_acquire_lock(lock->handle, NOWAIT_LOCK)) {
        Py_BEGIN_ALLOW_THREADS
        PyThread_acquire_lock(lock->handle, WAIT_LOCK);
        Py_END_ALLOW_THREADS
    }
    lock->is_held = 1;
    Py_RETURN_TRUE;
}

static PyObject *
lock_exit(PyObject *self, PyObject *const *Py_UNUSED(raised), Py_ssize_t Py_UNUSED(given))
{
    struct lock *lock = (struct lock *)self;

    if (!lock->is_held) {
        PyErr_SetString(PyExc_RuntimeError, "release unlocked lock");
        return NULL;
    }
    lock->is_held = 0;
    PyThread_release_lock(lock->handle);
    Py_RETURN_NONE;
}

static PyMethodDef lock_methods[] = {
    {"__enter__", lock_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))lock_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject Lock = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gateway._sockets.Lock",
    .tp_basicsize = sizeof(struct lock),
    .tp_dealloc = lock_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "A lock for ``with``.",
    .tp_methods = lock_methods,
    .tp_new = lock_new,
};

/* A connection that waits at a listening socket, and its peer's address; None if none does. */
static PyObject *
accept_connection(PyObject *Py_UNUSED(module), PyObject *listener)
{
    struct sockaddr_storage from = {0};
    socklen_t size = sizeof from;
    long waits = PyLong_AsLong(listener);
    PyObject *address, *accepted;
    struct socket *made;
    int number;

    if (waits == -1 && PyErr_Occurred())
        return NULL;
    number = accept4((int)waits, (struct sockaddr *)&from, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (number < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        Py_RETURN_NONE;
    if (number < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    made = PyObject_New(struct socket, &Socket);
    if (made == NULL) {
        close(number);
        return NULL;
    }
    made->number = number;
    address = address_of(&from);
    accepted = address == NULL ? NULL : PyTuple_Pack(2, (PyObject *)made, address);
    Py_XDECREF(address);
    Py_DECREF(made);
    return accepted;
}

static PyMethodDef functions[] = {
    {"accept", accept_connection, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "gateway._sockets",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__sockets(void)
{
    PyObject *module;

    if (PyType_Ready(&Socket) < 0 || PyType_Ready(&Lock) < 0)
        return NULL;
    module = PyModule_Create(&definition);
    if (module != NULL && (PyModule_AddObjectRef(module, "Socket", (PyObject *)&Socket) < 0 ||
                           PyModule_AddObjectRef(module, "Lock", (PyObject *)&Lock) < 0))
        Py_CLEAR(module);
    return module;
}
