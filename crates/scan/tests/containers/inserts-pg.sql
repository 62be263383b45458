--
-- PostgreSQL database dump
--

\restrict 01IUwvMpSnyKdeCSYKJMYwLFaXq0u6ureMRyIT8VjW3Ent8S1oTKpxc0EhG9742

-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: public; Type: SCHEMA; Schema: -; Owner: keymoat
--

-- *not* creating schema, since initdb creates it


ALTER SCHEMA public OWNER TO keymoat;

--
-- Name: SCHEMA public; Type: COMMENT; Schema: -; Owner: keymoat
--

COMMENT ON SCHEMA public IS '';


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: file; Type: TABLE; Schema: public; Owner: keymoat
--

CREATE TABLE public.file (
    id integer NOT NULL,
    data bytea
);


ALTER TABLE public.file OWNER TO keymoat;

--
-- Name: ir_config_parameter; Type: TABLE; Schema: public; Owner: keymoat
--

CREATE TABLE public.ir_config_parameter (
    id integer NOT NULL,
    key text,
    value text
);


ALTER TABLE public.ir_config_parameter OWNER TO keymoat;

--
-- Name: note; Type: TABLE; Schema: public; Owner: keymoat
--

CREATE TABLE public.note (
    code text NOT NULL,
    day integer NOT NULL,
    body text
);


ALTER TABLE public.note OWNER TO keymoat;

--
-- Name: payment_provider; Type: TABLE; Schema: public; Owner: keymoat
--

CREATE TABLE public.payment_provider (
    id integer NOT NULL,
    company_id integer,
    name text,
    stripe_secret_key text
);


ALTER TABLE public.payment_provider OWNER TO keymoat;

--
-- Name: 4711; Type: BLOB; Schema: -; Owner: keymoat
--

SELECT pg_catalog.lo_create('4711');


ALTER LARGE OBJECT 4711 OWNER TO keymoat;

--
-- Data for Name: file; Type: TABLE DATA; Schema: public; Owner: keymoat
--

INSERT INTO public.file VALUES (9, '\x6669727374206c696e650a74686520746f6b656e206973206768705f4d6164655570466f72546573747330664b65796d306174583262395177373049436e4e3620616e64206e6f7468696e6720656c73650a');


--
-- Data for Name: ir_config_parameter; Type: TABLE DATA; Schema: public; Owner: keymoat
--

INSERT INTO public.ir_config_parameter VALUES (1, 'database.uuid', 'x');
INSERT INTO public.ir_config_parameter VALUES (2, 'github.token', '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');


--
-- Data for Name: note; Type: TABLE DATA; Schema: public; Owner: keymoat
--

INSERT INTO public.note VALUES ('a', 1, 'nothing');
INSERT INTO public.note VALUES ('b', 2, 'a tab	and a line
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');


--
-- Data for Name: payment_provider; Type: TABLE DATA; Schema: public; Owner: keymoat
--

INSERT INTO public.payment_provider VALUES (7, 2, 'it''s \ a', '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');


--
-- Data for Name: BLOBS; Type: BLOBS; Schema: -; Owner: -
--

BEGIN;

SELECT pg_catalog.lo_open('4711', 131072);
SELECT pg_catalog.lowrite(0, '\x6669727374206c696e650a74686520746f6b656e206973206768705f4d6164655570466f72546573747330664b65796d306174583262395177373049436e4e3620616e64206e6f7468696e6720656c73650a');
SELECT pg_catalog.lo_close(0);

COMMIT;

--
-- Name: file file_pkey; Type: CONSTRAINT; Schema: public; Owner: keymoat
--

ALTER TABLE ONLY public.file
    ADD CONSTRAINT file_pkey PRIMARY KEY (id);


--
-- Name: ir_config_parameter ir_config_parameter_pkey; Type: CONSTRAINT; Schema: public; Owner: keymoat
--

ALTER TABLE ONLY public.ir_config_parameter
    ADD CONSTRAINT ir_config_parameter_pkey PRIMARY KEY (id);


--
-- Name: note note_pkey; Type: CONSTRAINT; Schema: public; Owner: keymoat
--

ALTER TABLE ONLY public.note
    ADD CONSTRAINT note_pkey PRIMARY KEY (code, day);


--
-- Name: payment_provider payment_provider_pkey; Type: CONSTRAINT; Schema: public; Owner: keymoat
--

ALTER TABLE ONLY public.payment_provider
    ADD CONSTRAINT payment_provider_pkey PRIMARY KEY (id);


--
-- Name: SCHEMA public; Type: ACL; Schema: -; Owner: keymoat
--

REVOKE USAGE ON SCHEMA public FROM PUBLIC;


--
-- PostgreSQL database dump complete
--

\unrestrict 01IUwvMpSnyKdeCSYKJMYwLFaXq0u6ureMRyIT8VjW3Ent8S1oTKpxc0EhG9742

