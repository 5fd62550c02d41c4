/* The inner loops of the CGI family's codecs: a block of variables to a dictionary.
 *
 * Optional: without this module the codecs do the same in Python, and tests
 * compare the two.  Here is only what goes without saying.  A function returns
 * None for a block that has anything to judge (a name twice, a length that leads
 * out of the block, bytes left over); the codec then looks at it in Python and
 * says what is wrong.
 */

#include "_pairs.h"

static PyObject *
none_unless_failed(void)
{
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
read_block(PyObject *block, reader next)
{
    const unsigned char *at;
    PyObject *environ;
    int claims = 0;

    if (!PyBytes_CheckExact(block)) {
        PyErr_SetString(PyExc_TypeError, "the block must be bytes");
        return NULL;
    }
    at = (const unsigned char *)PyBytes_AS_STRING(block);
    environ = read_pairs(at, at + PyBytes_GET_SIZE(block), next, 0, &claims);
    return environ != NULL ? environ : none_unless_failed();
}

/* FastCGI 1.0 section 3.3. */
enum { BEGIN_REQUEST = 1, END_REQUEST = 3, PARAMS = 4, STDIN = 5, STDOUT = 6 };
enum { HEAD_SIZE = 8, RESPONDER = 1, LARGEST = 65528 };

struct record {
    int kind, number;
    Py_ssize_t size;
    const unsigned char *content;
};

static int
next_record(const unsigned char **at, const unsigned char *end, struct record *found)
{
    const unsigned char *text = *at;
    Py_ssize_t after;

    if (end - text < HEAD_SIZE || text[0] != 1)
        return 0;
    found->kind = text[1];
    found->number = text[2] << 8 | text[3];
    found->size = text[4] << 8 | text[5];
    found->content = text + HEAD_SIZE;
    after = found->size + text[6];
    if (end - found->content < after)
        return 0;
    *at = found->content + after;
    return 1;
}

/* The one record of a stream of request ``number`` and its end; of a stream of nothing, the end. */
static int
next_stream(const unsigned char **at, const unsigned char *end, int kind, int number,
            struct record *found)
{
    struct record last;

    if (!next_record(at, end, found) || found->kind != kind || found->number != number)
        return 0;
    return !found->size || (next_record(at, end, &last) && last.kind == kind &&
                            last.number == number && !last.size);
}

/* The arguments of a request; 0 with an exception if they are others. */
static int
are_bytes_and_names(PyObject *const *args, Py_ssize_t count, const unsigned char **at,
                    const unsigned char **end, PyObject **base)
{
    if (count < 2 || count > 3 || !PyBytes_CheckExact(args[0]) ||
        !PyFrozenSet_CheckExact(args[1]) || (count == 3 && !PyDict_CheckExact(args[2]))) {
        PyErr_SetString(PyExc_TypeError, "bytes, a frozenset and perhaps a dict are needed");
        return 0;
    }
    *base = count == 3 ? args[2] : NULL;
    *at = (const unsigned char *)PyBytes_AS_STRING(args[0]);
    *end = *at + PyBytes_GET_SIZE(args[0]);
    return 1;
}

static PyObject *
fastcgi_request(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    const unsigned char *at, *end;
    struct record begin, params, body;
    PyObject *environ, *base;

    if (!are_bytes_and_names(args, count, &at, &end, &base))
        return NULL;
    if (!next_record(&at, end, &begin) || begin.kind != BEGIN_REQUEST || !begin.number ||
        begin.size != 8 || begin.content[0] || begin.content[1] != RESPONDER ||
        !next_stream(&at, end, PARAMS, begin.number, &params) ||
        !next_stream(&at, end, STDIN, begin.number, &body) || at != end)
        Py_RETURN_NONE;
    leave_out(args[1]);
    environ = read_variables(params.content, params.content + params.size, next_fastcgi, 1, base,
                             NULL);
    if (environ == NULL)
        return none_unless_failed();
    return Py_BuildValue("iiNy#", begin.number, (int)begin.content[2], environ, body.content,
                         body.size);
}

static PyObject *
fastcgi_pairs(PyObject *Py_UNUSED(module), PyObject *block)
{
    return read_block(block, next_fastcgi);
}

static PyObject *
uwsgi_pairs(PyObject *Py_UNUSED(module), PyObject *block)
{
    return read_block(block, next_uwsgi);
}

static PyObject *
scgi_pairs(PyObject *Py_UNUSED(module), PyObject *block)
{
    return read_block(block, next_scgi);
}

/* All of an SCGI request without a body: a netstring that says so first, and nothing else. */
static PyObject *
scgi_request(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    static const char first[] = "CONTENT_LENGTH\0000"; /* and its NUL */
    const unsigned char *at, *end;
    static const struct mark mark = {"SCGI", "1"};
    Py_ssize_t size = 0;
    PyObject *environ, *base;

    if (!are_bytes_and_names(args, count, &at, &end, &base))
        return NULL;
    if (at < end && *at == '0')
        Py_RETURN_NONE;
    for (; at < end && *at >= '0' && *at <= '9' && size < LARGEST; at++)
        size = size * 10 + (*at - '0');
    if (end - at != size + 2 || *at != ':' || end[-1] != ',' || size < (Py_ssize_t)sizeof first ||
        memcmp(at + 1, first, sizeof first) != 0)
        Py_RETURN_NONE;
    leave_out(args[1]);
    environ = read_variables(at + 1, end - 1, next_scgi, 1, base, &mark);
    return environ != NULL ? environ : none_unless_failed();
}

/* The variables of a uwsgi request of which nothing else came. */
static PyObject *
uwsgi_request(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    const unsigned char *at;
    Py_ssize_t size;
    PyObject *environ;

    if (count < 1 || count > 2 || !PyBytes_CheckExact(args[0]) ||
        (count == 2 && !PyDict_CheckExact(args[1]))) {
        PyErr_SetString(PyExc_TypeError, "bytes and perhaps a dict are needed");
        return NULL;
    }
    at = (const unsigned char *)PyBytes_AS_STRING(args[0]);
    size = PyBytes_GET_SIZE(args[0]) - 4;
    if (size < 0 || at[0] || at[3] || (at[1] | at[2] << 8) != size)
        Py_RETURN_NONE;
    environ = read_variables(at + 4, at + 4 + size, next_uwsgi, 0, count == 2 ? args[1] : NULL,
                             NULL);
    return environ != NULL ? environ : none_unless_failed();
}

static unsigned char *
put_head(unsigned char *at, int kind, long number, size_t size)
{
    *at++ = 1;
    *at++ = (unsigned char)kind;
    *at++ = (unsigned char)(number >> 8);
    *at++ = (unsigned char)number;
    *at++ = (unsigned char)(size >> 8);
    *at++ = (unsigned char)size;
    *at++ = (unsigned char)(-size & 7);
    *at++ = 0;
    return at;
}

static PyObject *
fastcgi_answer(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    size_t head, data, size, padding;
    unsigned char *at;
    PyObject *answer;
    long number;

    if (count != 3 || !PyLong_Check(args[0]) || !PyBytes_Check(args[1]) ||
        !PyBytes_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "a number and bytes twice are needed");
        return NULL;
    }
    number = PyLong_AsLong(args[0]);
    if (number == -1 && PyErr_Occurred())
        return NULL;
    head = (size_t)PyBytes_GET_SIZE(args[1]);
    data = (size_t)PyBytes_GET_SIZE(args[2]);
    if (number < 0 || number > 65535 || head > LARGEST || data > LARGEST - head || !(head + data))
        Py_RETURN_NONE;
    size = head + data;
    padding = -size & 7;
    answer = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(HEAD_SIZE * 4 + size + padding));
    if (answer == NULL)
        return NULL;
    at = put_head((unsigned char *)PyBytes_AS_STRING(answer), STDOUT, number, size);
    memcpy(at, PyBytes_AS_STRING(args[1]), head);
    memcpy(at + head, PyBytes_AS_STRING(args[2]), data);
    memset(at + size, 0, padding);
    at = put_head(at + size + padding, STDOUT, number, 0);
    at = put_head(at, END_REQUEST, number, 8);
    memset(at, 0, 8);
    return answer;
}

static PyMethodDef functions[] = {
    {"fastcgi_answer", (PyCFunction)(void (*)(void))fastcgi_answer, METH_FASTCALL,
     "All of an answer to a number, of a head and data that fit in one record; or None."},
    {"fastcgi_request", (PyCFunction)(void (*)(void))fastcgi_request, METH_FASTCALL,
     "Number, flags, variables and body of a whole request, without the names given; or None."},
    {"scgi_request", (PyCFunction)(void (*)(void))scgi_request, METH_FASTCALL,
     "Variables of a whole request without a body, without the names given; or None."},
    {"uwsgi_request", (PyCFunction)(void (*)(void))uwsgi_request, METH_FASTCALL,
     "Variables that are all that came, or None."},
    {"fastcgi_pairs", fastcgi_pairs, METH_O, "The variables of a FCGI_PARAMS stream, or None."},
    {"uwsgi_pairs", uwsgi_pairs, METH_O, "The variables of a uwsgi block, or None."},
    {"scgi_pairs", scgi_pairs, METH_O, "The variables of an SCGI netstring, or None."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "protocols._speed",
    .m_doc = "Blocks of variables to dictionaries, compiled; see protocols.pairs.",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__speed(void)
{
    return PyModule_Create(&definition);
}
