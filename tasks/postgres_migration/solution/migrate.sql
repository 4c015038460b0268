set client_min_messages to warning;
set timezone to 'UTC';
drop schema if exists v2 cascade;
create schema v2;

create table v2.customers (
    id int primary key,
    email text not null unique,
    name text not null,
    joined_on date not null
);
create table v2.products (
    sku text primary key,
    title text not null,
    price_cents bigint not null check (price_cents >= 0)
);
create table v2.orders (
    id int primary key,
    customer_id int not null references v2.customers,
    placed_at timestamptz not null,
    status text not null check (status in ('open', 'paid', 'shipped', 'cancelled')),
    total_cents bigint not null
);
create table v2.order_items (
    order_id int not null references v2.orders,
    sku text not null references v2.products,
    quantity int not null check (quantity > 0),
    primary key (order_id, sku)
);
create table v2.rejected (
    kind text not null,
    id int not null,
    reason text not null,
    primary key (kind, id)
);

insert into v2.products
select upper(trim(sku)), trim(title), (regexp_replace(price, '[^0-9.]', '', 'g')::numeric * 100)::bigint
from v1.products;

create temporary table person on commit drop as
select id, lower(trim(email)) as email, trim(regexp_replace(name, '\s+', ' ', 'g')) as name,
       case when joined like '%.%' then to_date(joined, 'DD.MM.YYYY') else joined::date end as joined_on,
       min(id) over (partition by lower(trim(email))) as survivor
from v1.customers
where email like '%@%';

insert into v2.customers
select survivor, email, (array_agg(name order by id))[1], min(joined_on)
from person
group by survivor, email;

insert into v2.rejected
select 'customer', id, 'no email' from v1.customers where id not in (select id from person);

create temporary table item on commit drop as
select o.id as order_id, upper(trim(split_part(part, ':', 1))) as sku, trim(split_part(part, ':', 2))::int as quantity
from v1.orders as o, unnest(string_to_array(o.items, ';')) as part
where trim(part) <> '';

insert into v2.rejected
select 'order', id, reason
from (
    select o.id,
           case
               when not exists (select from person where person.id = o.customer_id) then 'unknown customer'
               when not exists (select from item where order_id = o.id) then 'no items'
               when exists (select from item where order_id = o.id and sku not in (select sku from v2.products))
                   then 'unknown product'
           end as reason
    from v1.orders as o
) as judged
where reason is not null;

insert into v2.orders
select o.id, person.survivor,
       case
           when o.placed_at ~ '^\d+$' then to_timestamp(o.placed_at::bigint)
           else o.placed_at::timestamptz  -- without an offset it is in the session's time zone, which is UTC
       end,
       case lower(trim(coalesce(o.status, '')))
           when '' then 'open'
           when 'canceled' then 'cancelled'
           else lower(trim(o.status))
       end,
       (select sum(quantity * price_cents) from item join v2.products using (sku) where order_id = o.id)
from v1.orders as o join person on person.id = o.customer_id
where not exists (select from v2.rejected where kind = 'order' and rejected.id = o.id);

insert into v2.order_items
select order_id, sku, sum(quantity)
from item
where order_id in (select id from v2.orders)
group by order_id, sku;
