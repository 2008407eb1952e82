/* A PKCS#11 module in front of SoftHSM that misbehaves where a test says so: by files in the directory
 * STAND_IN_DIRECTORY. It writes a line for each login, encryption, decryption and end to the file "calls" there.
 *
 * hang       C_FindObjectsInit, C_Encrypt and C_Decrypt do not return while this file exists
 * final-try  the token says that one more wrong PIN locks it
 * broken     C_Encrypt and C_Decrypt fail with CKR_DEVICE_ERROR
 * no-flags   the token does not tell that a wrong PIN was tried
 * vague      a login that fails does so with CKR_GENERAL_ERROR
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long number;

/* CK_FUNCTION_LIST of version 2.40: 68 functions in a fixed order. */
struct functions {
	unsigned char version[2];
	void *call[68];
};
enum { FINALIZE = 1, GET_FUNCTION_LIST = 3, GET_TOKEN_INFO = 6, LOGIN = 18, FIND = 26, ENCRYPT = 30, DECRYPT = 34 };

/* CK_TOKEN_INFO: the flags stand behind four texts. */
enum { FLAGS_AT = 32 + 32 + 16 + 16 };
static const number COUNT_LOW = 0x10000, FINAL_TRY = 0x20000, GENERAL_ERROR = 0x5, DEVICE_ERROR = 0x30;

static struct functions real, ours;

static const char *at(const char *name, char *path, size_t size)
{
	snprintf(path, size, "%s/%s", getenv("STAND_IN_DIRECTORY"), name);
	return path;
}

static int is_set(const char *name)
{
	char path[4096];
	return access(at(name, path, sizeof path), F_OK) == 0;
}

static void note(const char *call)
{
	char path[4096];
	int file = open(at("calls", path, sizeof path), O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (file >= 0) {
		(void)!write(file, call, strlen(call));
		close(file);
	}
}

static number get_token_info(number slot, void *info)
{
	number answer = ((number(*)(number, void *))real.call[GET_TOKEN_INFO])(slot, info);
	if (answer == 0 && is_set("final-try"))
		*(number *)((char *)info + FLAGS_AT) |= FINAL_TRY;
	if (answer == 0 && is_set("no-flags"))
		*(number *)((char *)info + FLAGS_AT) &= ~COUNT_LOW;
	return answer;
}

static number login(number session, number user, void *pin, number length)
{
	number answer;
	note("login\n");
	answer = ((number(*)(number, number, void *, number))real.call[LOGIN])(session, user, pin, length);
	return answer != 0 && is_set("vague") ? GENERAL_ERROR : answer;
}

static number finalize(void *reserved)
{
	note("finalize\n");
	return ((number(*)(void *))real.call[FINALIZE])(reserved);
}

static number find(number session, void *template, number count)
{
	while (is_set("hang"))
		usleep(1000);
	return ((number(*)(number, void *, number))real.call[FIND])(session, template, count);
}

static number pass(int which, number session, void *in, number size, void *out, number *length)
{
	if (out != NULL)
		note("enter\n");
	while (is_set("hang"))
		usleep(1000);
	if (is_set("broken"))
		return DEVICE_ERROR;
	return ((number(*)(number, void *, number, void *, number *))real.call[which])(session, in, size, out, length);
}

static number encrypt(number session, void *in, number size, void *out, number *length)
{
	return pass(ENCRYPT, session, in, size, out, length);
}

static number decrypt(number session, void *in, number size, void *out, number *length)
{
	return pass(DECRYPT, session, in, size, out, length);
}

number C_GetFunctionList(struct functions **list);

number C_GetFunctionList(struct functions **list)
{
	struct functions *found;
	void *module = dlopen(getenv("STAND_IN_FOR"), RTLD_NOW | RTLD_LOCAL);
	number (*get)(struct functions **) = module ? dlsym(module, "C_GetFunctionList") : NULL;
	if (get == NULL || get(&found) != 0)
		return DEVICE_ERROR;
	real = ours = *found;
	ours.call[GET_FUNCTION_LIST] = C_GetFunctionList;
	ours.call[FINALIZE] = finalize;
	ours.call[GET_TOKEN_INFO] = get_token_info;
	ours.call[LOGIN] = login;
	ours.call[FIND] = find;
	ours.call[ENCRYPT] = encrypt;
	ours.call[DECRYPT] = decrypt;
	*list = &ours;
	return 0;
}
