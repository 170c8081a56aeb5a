// SPDX-License-Identifier: GPL-2.0
/*
 * A stand-in for the user heartbeat of the 2005-2007 OCFS2 drivers, for tests only.
 *
 * No mainline kernel has that driver. This module gives its configfs tree and nothing
 * behind it: no network, no file system. What the driver would have told o2dlm is
 * written down as an event instead,
 *
 *	<sequence> up|down <region> <node number>
 *
 * in the kernel log and in debugfs, o2bridge_user_heartbeat/events. The file "live"
 * beside it shows the map of every region.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/configfs.h>
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#define NODES 255
#define NODE_NAME_MAX 64
#define REGION_NAME_MAX 32

static char *subsystem = "cluster";
module_param(subsystem, charp, 0444);
MODULE_PARM_DESC(subsystem, "name in configfs; ocfs2_nodemanager, if loaded, has \"cluster\"");

static bool sles10;
module_param(sles10, bool, 0444);
MODULE_PARM_DESC(sles10, "the mode file is /sys/o2cb/heartbeat_mode, its place before 2007");

/* What nodes and regions have in common. */
struct member {
	struct config_item item;	/* first: one release, one kfree(), for both */
	struct list_head entry;
};

enum value { PORT, ADDRESS, NUM, LOCAL, VALUES };

struct node {
	struct member member;
	unsigned int has;		/* BIT() of every value written */
	u32 value[VALUES];
};

struct region {
	struct member member;
	DECLARE_BITMAP(up, NODES);
};

struct cluster {
	struct config_group group, nodes, regions;
};

struct event {
	struct list_head entry;
	unsigned long sequence;
	const char *what;
	u32 num;
	char region[REGION_NAME_MAX + 1];
};

#define to_member(i) container_of(i, struct member, item)
#define to_node(i) container_of(i, struct node, member.item)
#define to_region(i) container_of(i, struct region, member.item)
#define to_cluster(i) container_of(i, struct cluster, group.cg_item)

/* One for all: configfs keeps only callers in the same directory apart. */
static DEFINE_MUTEX(lock);
static LIST_HEAD(nodes);
static LIST_HEAD(regions);
static LIST_HEAD(events);
static struct cluster *the_cluster;
/* The disk method was always registered first, so it is what one gets without asking. */
static bool user_method;

/* With the lock held. May not fail: a test would take a lost event for one that never was. */
static void record(const char *what, struct region *region, u32 num)
{
	static unsigned long sequence;
	struct event *event = kzalloc(sizeof(*event), GFP_KERNEL | __GFP_NOFAIL);

	event->sequence = ++sequence;
	event->what = what;
	event->num = num;
	strscpy(event->region, config_item_name(&region->member.item), sizeof(event->region));
	list_add_tail(&event->entry, &events);
	pr_info("event %lu %s %s %u\n", event->sequence, what, event->region, num);
}

static int events_show(struct seq_file *file, void *unused)
{
	struct event *event;

	mutex_lock(&lock);
	list_for_each_entry(event, &events, entry)
		seq_printf(file, "%lu %s %s %u\n", event->sequence, event->what,
			   event->region, event->num);
	mutex_unlock(&lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(events);

static int live_show(struct seq_file *file, void *unused)
{
	struct region *region;

	mutex_lock(&lock);
	list_for_each_entry(region, &regions, member.entry)
		seq_printf(file, "%s %*pbl\n", config_item_name(&region->member.item),
			   NODES, region->up);
	mutex_unlock(&lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(live);

static bool another_has(struct node *node, enum value what, u32 value)
{
	struct node *other;

	list_for_each_entry(other, &nodes, member.entry)
		if (other != node && other->has & BIT(what) && other->value[what] == value)
			return true;
	return false;
}

/* With the lock held. */
static int set_value(struct node *node, enum value what, u32 value)
{
	static const unsigned int needed[VALUES] = {
		[NUM] = BIT(PORT) | BIT(ADDRESS),
		[LOCAL] = BIT(PORT) | BIT(ADDRESS) | BIT(NUM),
	};

	if ((node->has & needed[what]) != needed[what] || (what == PORT && !value))
		return -EINVAL;
	if (what == LOCAL && value && another_has(node, what, value))
		return -EBUSY;
	if (what != LOCAL && node->has & BIT(what))
		return -EBUSY;
	if ((what == ADDRESS || what == NUM) && another_has(node, what, value))
		return -EEXIST;
	node->has |= BIT(what);
	node->value[what] = value;
	return 0;
}

static ssize_t node_store(struct config_item *item, enum value what, u32 value, size_t count)
{
	int ret;

	mutex_lock(&lock);
	ret = set_value(to_node(item), what, value);
	mutex_unlock(&lock);
	return ret ?: count;
}

static ssize_t number_store(struct config_item *item, enum value what, u32 max,
			    const char *page, size_t count)
{
	u32 value;
	int ret = kstrtou32(page, 0, &value);

	if (!ret && value > max)
		ret = -ERANGE;
	return ret ?: node_store(item, what, value, count);
}

static ssize_t node_num_store(struct config_item *item, const char *page, size_t count)
{
	return number_store(item, NUM, NODES - 1, page, count);
}

static ssize_t node_ipv4_port_store(struct config_item *item, const char *page, size_t count)
{
	return number_store(item, PORT, U16_MAX - 1, page, count);
}

static ssize_t node_ipv4_address_store(struct config_item *item, const char *page, size_t count)
{
	unsigned int a, b, c, d;

	if (sscanf(page, "%3u.%3u.%3u.%3u", &a, &b, &c, &d) != 4)
		return -EINVAL;
	if (a > 255 || b > 255 || c > 255 || d > 255)
		return -ERANGE;
	return node_store(item, ADDRESS, a << 24 | b << 16 | c << 8 | d, count);
}

static ssize_t node_local_store(struct config_item *item, const char *page, size_t count)
{
	return number_store(item, LOCAL, 1, page, count);
}

#define NODE_ATTR(name, format, shown)							\
static ssize_t node_##name##_show(struct config_item *item, char *page)			\
{											\
	return sysfs_emit(page, format "\n", shown);					\
}											\
CONFIGFS_ATTR(node_, name)

NODE_ATTR(num, "%u", to_node(item)->value[NUM]);
NODE_ATTR(ipv4_port, "%u", to_node(item)->value[PORT]);
NODE_ATTR(ipv4_address, "%pI4h", &to_node(item)->value[ADDRESS]);
NODE_ATTR(local, "%u", to_node(item)->value[LOCAL]);

static void member_release(struct config_item *item)
{
	kfree(to_member(item));
}

static const struct config_item_type node_type = {
	.ct_item_ops = &(struct configfs_item_operations){ .release = member_release },
	.ct_attrs = (struct configfs_attribute *[]){
		&node_attr_num, &node_attr_ipv4_port, &node_attr_ipv4_address,
		&node_attr_local, NULL },
	.ct_owner = THIS_MODULE,
};

/*
 * The driver took whatever lay below the same cluster for a node, and a node without a
 * number for number 0. Refused here, so that a caller that does it is found out.
 */
static int allow_link(struct config_item *item, struct config_item *target)
{
	struct cluster *cluster = to_cluster(item->ci_parent->ci_parent);
	struct node *node = to_node(target);
	int ret = -EINVAL;

	/* The mode needs no lock: it stays as it is while there is a cluster. */
	if (!user_method || target->ci_parent != &cluster->nodes.cg_item)
		return -EPERM;
	mutex_lock(&lock);
	if (node->has & BIT(NUM)) {
		set_bit(node->value[NUM], to_region(item)->up);
		record("up", to_region(item), node->value[NUM]);
		ret = 0;
	}
	mutex_unlock(&lock);
	return ret;
}

static void drop_link(struct config_item *item, struct config_item *target)
{
	u32 num = to_node(target)->value[NUM];

	mutex_lock(&lock);
	clear_bit(num, to_region(item)->up);
	record("down", to_region(item), num);
	mutex_unlock(&lock);
}

static const struct config_item_type region_type = {
	.ct_item_ops = &(struct configfs_item_operations){
		.release = member_release, .allow_link = allow_link, .drop_link = drop_link },
	.ct_owner = THIS_MODULE,
};

static struct config_item *member_make(const char *name, size_t name_max, size_t size,
				       const struct config_item_type *type, struct list_head *list)
{
	struct member *member;

	if (strlen(name) > name_max)
		return ERR_PTR(-ENAMETOOLONG);
	member = kzalloc(size, GFP_KERNEL);
	if (!member)
		return ERR_PTR(-ENOMEM);
	config_item_init_type_name(&member->item, name, type);
	mutex_lock(&lock);
	list_add_tail(&member->entry, list);
	mutex_unlock(&lock);
	return &member->item;
}

static struct config_item *node_make(struct config_group *group, const char *name)
{
	return member_make(name, NODE_NAME_MAX, sizeof(struct node), &node_type, &nodes);
}

static struct config_item *region_make(struct config_group *group, const char *name)
{
	return member_make(name, REGION_NAME_MAX, sizeof(struct region), &region_type, &regions);
}

/* Not left to the release, which an open attribute can delay: the number is free at once. */
static void member_drop(struct config_group *group, struct config_item *item)
{
	mutex_lock(&lock);
	list_del(&to_member(item)->entry);
	mutex_unlock(&lock);
	config_item_put(item);
}

static const struct config_item_type nodes_type = {
	.ct_group_ops = &(struct configfs_group_operations){
		.make_item = node_make, .drop_item = member_drop },
	.ct_owner = THIS_MODULE,
};

static const struct config_item_type regions_type = {
	.ct_group_ops = &(struct configfs_group_operations){
		.make_item = region_make, .drop_item = member_drop },
	.ct_owner = THIS_MODULE,
};

static void cluster_release(struct config_item *item)
{
	kfree(to_cluster(item));
}

static const struct config_item_type cluster_type = {
	.ct_item_ops = &(struct configfs_item_operations){ .release = cluster_release },
	.ct_owner = THIS_MODULE,
};

static struct config_group *cluster_make(struct config_group *root, const char *name)
{
	struct cluster *cluster = kzalloc(sizeof(*cluster), GFP_KERNEL);
	bool first;

	if (!cluster)
		return ERR_PTR(-ENOMEM);
	mutex_lock(&lock);
	first = !the_cluster;
	if (first)
		the_cluster = cluster;
	mutex_unlock(&lock);
	if (!first) {
		kfree(cluster);
		return ERR_PTR(-ENOSPC);
	}
	config_group_init_type_name(&cluster->group, name, &cluster_type);
	config_group_init_type_name(&cluster->nodes, "node", &nodes_type);
	config_group_init_type_name(&cluster->regions, "heartbeat", &regions_type);
	configfs_add_default_group(&cluster->nodes, &cluster->group);
	configfs_add_default_group(&cluster->regions, &cluster->group);
	return &cluster->group;
}

static void cluster_drop(struct config_group *root, struct config_item *item)
{
	mutex_lock(&lock);
	the_cluster = NULL;
	mutex_unlock(&lock);
	configfs_remove_default_groups(to_config_group(item));
	config_item_put(item);
}

static ssize_t root_heartbeat_mode_show(struct config_item *item, char *page)
{
	return sysfs_emit(page, "%s\n", user_method ? "user" : "disk");
}

/* The driver left the last byte out of the comparison: without the newline it is no name. */
static ssize_t root_heartbeat_mode_store(struct config_item *item, const char *page, size_t count)
{
	bool user = !strcmp(page, "user\n");
	int ret = 0;

	mutex_lock(&lock);
	if (!user && strcmp(page, "disk\n"))
		ret = -EINVAL;
	else if (the_cluster)
		ret = -EBUSY;
	else
		user_method = user;
	mutex_unlock(&lock);
	return ret ?: count;
}

static ssize_t root_heartbeat_available_modes_show(struct config_item *item, char *page)
{
	return sysfs_emit(page, "disk\nuser\n");
}

CONFIGFS_ATTR(root_, heartbeat_mode);
CONFIGFS_ATTR_RO(root_, heartbeat_available_modes);

static struct configfs_attribute *root_attrs[] = {
	&root_attr_heartbeat_mode, &root_attr_heartbeat_available_modes, NULL
};

static struct config_item_type root_type = {
	.ct_group_ops = &(struct configfs_group_operations){
		.make_group = cluster_make, .drop_item = cluster_drop },
	.ct_owner = THIS_MODULE,
};

static struct configfs_subsystem root;

static ssize_t heartbeat_mode_show(struct kobject *kobj, struct kobj_attribute *attr, char *page)
{
	return root_heartbeat_mode_show(NULL, page);
}

static ssize_t heartbeat_mode_store(struct kobject *kobj, struct kobj_attribute *attr,
				    const char *page, size_t count)
{
	return root_heartbeat_mode_store(NULL, page, count);
}

static struct kobj_attribute heartbeat_mode = __ATTR_RW(heartbeat_mode);
static struct kobject *o2cb;
static struct dentry *debug;

static int __init mode_file_init(void)
{
	if (!sles10) {
		root_type.ct_attrs = root_attrs;
		return 0;
	}
	o2cb = kobject_create_and_add("o2cb", NULL);
	return o2cb ? sysfs_create_file(o2cb, &heartbeat_mode.attr) : -ENOMEM;
}

static int __init user_heartbeat_init(void)
{
	int ret = mode_file_init();

	config_group_init_type_name(&root.su_group, subsystem, &root_type);
	mutex_init(&root.su_mutex);
	if (!ret)
		ret = configfs_register_subsystem(&root);
	if (ret) {
		kobject_put(o2cb);
		return ret;
	}
	debug = debugfs_create_dir(KBUILD_MODNAME, NULL);
	debugfs_create_file("events", 0444, debug, NULL, &events_fops);
	debugfs_create_file("live", 0444, debug, NULL, &live_fops);
	return 0;
}

static void __exit user_heartbeat_exit(void)
{
	struct event *event, *next;

	debugfs_remove(debug);
	configfs_unregister_subsystem(&root);
	kobject_put(o2cb);
	list_for_each_entry_safe(event, next, &events, entry)
		kfree(event);
}

module_init(user_heartbeat_init);
module_exit(user_heartbeat_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Stand-in for the OCFS2 user heartbeat driver of 2005-2007, for tests");
